"""The random affine map: a thing stays whole, comes in every size and place that is promised, and by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regraft.images import affine
from regraft.images.affine import AffineTransform
from regraft.images.spec import ImageSpec

SPEC = ImageSpec((3, 40, 80), crop_pct=1.0)


def box(height: int = 40, width: int = 80, colour: int = 200, ground: int = 17) -> torch.Tensor:
    picture = torch.full((3, height, width), ground, dtype=torch.uint8)
    picture[:, height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = colour
    return picture


def test_a_seed_gives_the_same_picture_again() -> None:
    transform = AffineTransform(SPEC)
    again = [transform(box(), np.random.default_rng(3)) for _ in range(2)]
    assert again[0].shape == (3, 40, 80) and again[0].dtype == torch.uint8
    assert torch.equal(*again)
    assert not torch.equal(again[0], transform(box(), np.random.default_rng(4)))


def test_sizes_and_places_cover_what_is_promised_and_no_more() -> None:
    transform = AffineTransform(SPEC, flip=False, colour=0.0)
    areas, middles = [], []
    for seed in range(400):
        found = transform(box(), np.random.default_rng(seed))[0].float()
        share = (found - 17) / (200 - 17)
        assert float(share[[0, -1]].abs().max()) == 0  # what comes in from outside is the ground
        areas.append(float(share.sum()) / 64)
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
        middles.append([float((share * rows).sum() / share.sum()), float((share * columns).sum() / share.sum())])
    assert 0.28 < min(areas) < 0.4 and 2.7 < max(areas) < 3.3  # a scale of 1/1.8 … 1.8 both ways
    spread = np.ptp(np.array(middles), axis=0)
    assert spread[0] == pytest.approx(2 * 0.1 * 40, rel=0.45) and spread[1] == pytest.approx(2 * 0.1 * 80, rel=0.45)


def test_without_a_draw_the_picture_is_the_scored_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN_RAD", "LOG_SCALE", "LOG_STRETCH", "SLANT", "SHIFT"):
        monkeypatch.setattr(affine, name, 0.0)
    picture = torch.randint(0, 256, (3, 40, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = AffineTransform(SPEC, flip=False, colour=0.0)(picture, np.random.default_rng(0))
    assert torch.equal(found, picture)


def test_a_turn_keeps_right_angles_in_an_oblong_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_SCALE", "LOG_STRETCH", "SLANT", "SHIFT"):
        monkeypatch.setattr(affine, name, 0.0)
    monkeypatch.setattr(affine, "TURN_RAD", 0.8)
    for seed in range(5):
        share = (
            AffineTransform(SPEC, flip=False, colour=0.0)(box(), np.random.default_rng(seed))[0].float() - 17
        ) / 183
        rows, columns = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
        second = [
            float((share * a * b).sum() / share.sum()) for a, b in ((rows, rows), (columns, columns), (rows, columns))
        ]
        # A square has the same second moments whichever way it is turned.
        assert second[0] == pytest.approx(16 / 3, rel=0.1) and second[1] == pytest.approx(16 / 3, rel=0.1)
        assert abs(second[2]) < 0.5


def test_a_slant_slides_the_top_over_the_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN_RAD", "LOG_SCALE", "LOG_STRETCH", "SHIFT"):
        monkeypatch.setattr(affine, name, 0.0)
    transform, leans = AffineTransform(SPEC, flip=False, colour=0.0), []
    for seed in range(60):
        share = (transform(box(), np.random.default_rng(seed))[0].float() - 17) / 183
        columns = torch.arange(80.0) - 39.5
        top, bottom = (float((share[row] * columns).sum() / share[row].sum()) for row in (17, 22))
        assert float(share.sum()) == pytest.approx(64, rel=0.03)  # it stays as large
        leans.append((bottom - top) / 5)
    assert min(leans) == pytest.approx(-0.3, abs=0.06) and max(leans) == pytest.approx(0.3, abs=0.06)
