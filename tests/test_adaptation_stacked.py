"""Pictures altered by chance: bounded, each by draws of its own, and every kind of change seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regraft.adaptation.altered import stacked
from regraft.adaptation.altered.stacked import altered_by_chance, blurred


def ramp(count: int) -> torch.Tensor:
    """Coloured ramps (count, 3, 32, 48), the same picture again and again."""
    rows = torch.linspace(0.1, 0.9, 32)[:, None].expand(32, 48)
    columns = torch.linspace(0.2, 0.6, 48)[None].expand(32, 48)
    return torch.stack([rows, columns, 0.5 * (rows + columns)]).expand(count, 3, 32, 48)


def test_each_picture_is_altered_by_draws_of_its_own_within_bounds() -> None:
    torch.manual_seed(0)
    x = ramp(64)
    out = altered_by_chance((x * 255).round().to(torch.uint8))
    assert out.shape == x.shape and out.dtype == torch.float32
    assert float(out.min()) >= 0 and float(out.max()) <= 1
    assert len({round(float(one.mean()), 5) for one in out}) == 64
    torch.manual_seed(0)
    assert torch.equal(altered_by_chance((x * 255).round().to(torch.uint8)), out)
    # A negative is brighter at the top; about a fifth of them are, and about a fifth have no colour.
    negative = float((out[:, :, :8].mean(dim=(1, 2, 3)) > out[:, :, -8:].mean(dim=(1, 2, 3))).float().mean())
    grey = float(((out - out.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-3).float().mean())
    assert 0.05 < negative < 0.4 and 0.05 < grey < 0.4


def test_without_strength_a_picture_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUT", "LOG_GAMMA", "FADED", "BLUR", "NOISE", "NEGATIVE", "GREY"):
        monkeypatch.setattr(stacked, name, 0.0)
    x = ramp(4)
    assert torch.allclose(altered_by_chance(x), x, atol=1e-5)


def test_blur_is_a_gaussian_of_each_pictures_own_width() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 40, 30, generator=draw)
    sigma = torch.tensor([0.0, 0.8, 1.7])
    out = blurred(x, sigma)
    assert torch.allclose(out[0], x[0], atol=1e-6)
    for n in (1, 2):
        for c in range(2):
            expected = gaussian_filter(x[n, c].numpy().astype(np.float64), float(sigma[n]), mode="mirror", radius=6)
            assert np.allclose(out[n, c].numpy(), expected, atol=1e-5)
    assert torch.equal(blurred(x, torch.zeros(3)), x)
