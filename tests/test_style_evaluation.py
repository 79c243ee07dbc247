"""The figures of a style and the dial: against formulas, against torchmetrics, and where nothing was changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regraft.core.errors import MissingExtraError, UsageError
from regraft.style.figures.dial import front, search
from regraft.style.figures.evaluation import (
    Costs,
    Evaluator,
    Figures,
    Yardstick,
    centre_square,
    measure_costs,
    percentiles_ms,
    psnr_db,
    reported_ssim,
    to_json,
    yardstick,
)
from regraft.style.figures.similarity import ssim
from test_style_methods import scene

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measure() -> Yardstick:
    return yardstick()


def test_without_a_file_the_offline_network_measures_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path_factory.mktemp("empty")))
    assert yardstick().described.startswith("scion, layers stem, ")


def test_squeezenet_measures_where_its_file_is_given(shared: object) -> None:
    from pathlib import Path

    found = yardstick(Path(str(shared)) / "weights" / "squeezenet1_1.safetensors")
    assert found.described == "squeezenet1_1, layers 1, 4, 6, 7, 256 × 256 px"


def test_reported_ssim_is_torchmetrics_and_ours_agrees() -> None:
    pytest.importorskip("torchmetrics")
    a, b = scene(0), (scene(0) * 0.7 + 0.2 * scene(1)).clamp(0, 1)
    assert reported_ssim(a, b) == pytest.approx(float(ssim(a, b)), abs=2e-5)
    assert reported_ssim(a, a) == pytest.approx(1, abs=1e-5)


def test_without_torchmetrics_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.functional.image", None)
    with pytest.raises(MissingExtraError, match=r"regraft\[style\]"):
        reported_ssim(scene(0), scene(0))


def test_gram_cosine_is_the_mean_over_layers(measure: Yardstick) -> None:
    content, style, other = scene(2), scene(3, 60, 50), scene(4)
    evaluator = Evaluator(content, [(style, 1.0)], measure)

    def grams(picture: Tensor) -> list[np.ndarray]:
        found = measure.network(centre_square(picture, 256)[None], measure.gram_layers)
        flat = [value[0].flatten(1).double().numpy() for value in found.values()]
        return [(f @ f.T).ravel() for f in flat]

    pairs = list(zip(grams(other), grams(style), strict=True))
    expected = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    assert evaluator.gram_cosine(other) == pytest.approx(expected, abs=1e-5)
    assert evaluator.gram_cosine(style) == pytest.approx(1, abs=1e-5)


def test_several_styles_are_measured_against_their_mixture(measure: Yardstick) -> None:
    content, a, b = scene(5), scene(6), scene(7) ** 3
    mixed = Evaluator(content, [(a, 3.0), (b, 1.0)], measure)
    alone = Evaluator(content, [(a, 1.0), (b, 0.0)], measure)
    assert alone.gram_cosine(a) == pytest.approx(1, abs=1e-5)
    assert mixed.gram_cosine(a) < 0.9999 and mixed.gram_cosine(a) > mixed.gram_cosine(b)


def test_the_baselines_are_the_content_and_plain_colours(measure: Yardstick) -> None:
    pytest.importorskip("torchmetrics")
    content, style = scene(8), scene(9) ** 2
    evaluator = Evaluator(content, [(style, 1.0)], measure)
    found = evaluator.baselines()
    untouched = found["unstylised"]
    assert untouched.ssim == pytest.approx(1, abs=1e-5) and untouched.lift == pytest.approx(0, abs=1e-6)
    assert untouched.content_distance == 0 and untouched.perceptual_distance == 0
    coloured = found["colour transfer"]
    assert coloured.lift > 0 and coloured.ssim < 1 and coloured.content_distance > 0


def test_lpips_like_distance_by_its_formula(measure: Yardstick) -> None:
    pytest.importorskip("torchmetrics")
    a, b = scene(10), scene(11)
    found = Evaluator(a, [(b, 1.0)], measure).figures(b).perceptual_distance
    pairs = [measure.network(centre_square(picture, 256)[None], measure.gram_layers) for picture in (a, b)]
    layers = []
    for name in measure.gram_layers:
        x, y = (pair[name][0].numpy() for pair in pairs)
        unit = x / np.linalg.norm(x, axis=0).clip(1e-12) - y / np.linalg.norm(y, axis=0).clip(1e-12)
        layers.append((unit**2).sum(axis=0).mean())
    assert found == pytest.approx(np.mean(layers), rel=1e-4)


def test_a_result_of_another_size_is_brought_to_the_contents(measure: Yardstick) -> None:
    pytest.importorskip("torchmetrics")
    content = scene(12)
    figures = Evaluator(content, [(scene(13), 1.0)], measure).figures(scene(12, 96, 128))
    assert figures.ssim > 0.95


def test_json_has_the_promised_keys() -> None:
    figures = Figures(
        ssim=0.9, gram_cosine=0.8, gram_cosine_unstylised=0.5, content_distance=0.1, perceptual_distance=0.2
    )
    found = to_json(figures, Costs())
    keys = {"ssim", "gram_cosine", "gram_cosine_unstylised", "lift", "content_distance", "latency_ms",
            "noise_psnr_drop_db", "peak_memory_bytes"}  # fmt: skip
    assert keys <= set(found)
    assert found["lift"] == pytest.approx(0.3)
    assert found["latency_ms"] == {"p50": None, "p95": None} and found["noise_psnr_drop_db"] is None


def test_percentiles() -> None:
    assert percentiles_ms([3.0]) == {"p50": 3.0, "p95": 3.0}
    assert percentiles_ms([4.0, 1.0, 2.0, 3.0]) == {"p50": 2.5, "p95": 4.0}
    assert percentiles_ms([float(i) for i in range(1, 101)]) == {"p50": 50.5, "p95": 95.0}


def test_costs_of_doing_nothing_and_of_doubling_contrast() -> None:
    content = 0.4 + 0.2 * scene(14)
    calls: list[Tensor] = []

    def same(picture: Tensor) -> Tensor:
        calls.append(picture)
        return picture

    first, costs = measure_costs(same, content, repeats=3, noise=True)
    assert first is content and len(calls) == 4 and len(costs.latency_ms) == 3
    assert costs.noise_psnr_drop_db == pytest.approx(0, abs=1e-6)
    assert costs.peak_memory_bytes is None or costs.peak_memory_bytes > 50 << 20
    _, doubled = measure_costs(lambda p: 2 * p, content, repeats=1, noise=True)
    assert doubled.noise_psnr_drop_db == pytest.approx(20 * np.log10(2), abs=1e-3)
    sigma = psnr_db(calls[-1], content)
    assert sigma == pytest.approx(-20 * np.log10(10 / 255), abs=0.3)


def test_the_dial_gives_the_most_style_that_keeps_the_asked_ssim() -> None:
    content = scene(15)
    stylised = (1 - content).clamp(0, 1)
    found = search(content, stylised, 0.85)
    assert found.ssim >= 0.85 and 0 < found.strength < 1
    more = torch.lerp(content, stylised, found.strength + 0.01)
    assert float(ssim(more, content)) < 0.852, "a little more would break it"
    written = (found.image * 255).round() / 255
    assert float(ssim(written, content)) >= 0.85, "also as eight bits"
    assert search(content, content, 0.99).strength == 1
    stricter = search(content, stylised, 0.95)
    assert stricter.strength < found.strength


@pytest.mark.parametrize("asked", [0.0, 1.0, -1.0, float("nan")])
def test_a_dial_that_means_nothing_is_refused(asked: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        search(scene(0), scene(1), asked)


def test_the_front_runs_from_the_content_to_the_stylised_picture(measure: Yardstick) -> None:
    content, style = scene(16), scene(17) ** 3
    evaluator = Evaluator(content, [(style, 1.0)], measure)
    points = front(content, style, evaluator.gram_cosine, (0.0, 0.5, 1.0))
    assert points[0].ssim > 0.99 and points[0].gram_cosine == pytest.approx(evaluator.gram_cosine(content))
    assert points[0].gram_cosine < points[1].gram_cosine < points[2].gram_cosine
    assert points[2].gram_cosine == pytest.approx(1, abs=1e-5)
