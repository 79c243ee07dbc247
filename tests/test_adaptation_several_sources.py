"""Several sources: M3SDA against its formula, the weights against a numeric minimum, and one source as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from regraft.adaptation.base import losses
from regraft.adaptation.domains import Labelled, domain_names, read_labelled
from regraft.adaptation.training.bench import adapter_model
from regraft.adaptation.training.cached import FeatureCandidates
from regraft.adaptation.training.several_sources import M3SDA, nearness_weights
from regraft.adaptation.training.sources import SourceDomain, measured, sample_weights
from regraft.adaptation.training.task import Adaptation
from regraft.core.errors import DataError, UsageError
from regraft.core.types import Batch, DomainView
from regraft.data.vectors import VectorStream
from regraft.engine.splitting import split_batches
from two_domains import Arrays, D, K, arrays, picture_domains, views

pytestmark = pytest.mark.usefixtures("one_thread")
OF = np.array([0, 2, 2, 0, 5, 5, 2])


def m3sda(a: Arrays, of: np.ndarray | None, order: int = 2) -> float:
    """Equation 1 of arXiv:1812.01754, pair by pair."""
    parts = [a["x"]] if of is None else [a["x"][of == d] for d in sorted(set(of))]
    total = 0.0
    for k in range(1, order + 1):
        moments = [(part**k).mean(axis=0) for part in parts]
        total += float(np.mean([np.linalg.norm(m - (a["y"] ** k).mean(axis=0)) for m in moments]))
        pairs = [np.linalg.norm(moments[i] - moments[j]) for i in range(len(parts)) for j in range(i)]
        total += float(np.mean(pairs)) if pairs else 0.0
    return total


def of_sources(a: Arrays, of: np.ndarray | None, dtype: torch.dtype = torch.float32) -> tuple[DomainView, DomainView]:
    source, target = views(a, dtype)
    return replace(source, domains=None if of is None else torch.from_numpy(of)), target


@pytest.mark.parametrize("of", [None, OF, np.arange(7), np.zeros(7, dtype=np.int64)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_m3sda_is_equation_1(of: np.ndarray | None, order: int) -> None:
    a = arrays(seed=3)
    found = M3SDA(D, K, order=order)(*of_sources(a, of), 0.5)
    assert found.detach().item() == pytest.approx(m3sda(a, of, order), rel=1e-5)


def test_the_gradient_of_m3sda_is_the_finite_difference() -> None:
    a = arrays(seed=3)
    source, target = of_sources(a, OF)
    M3SDA(D, K)(source, target, 0.5).backward()
    for name, leaf in (("x", source.features), ("y", target.features)):
        numeric = np.zeros_like(a[name])
        for index in np.ndindex(*numeric.shape):
            step = np.zeros_like(numeric)
            step[index] = 1e-5
            numeric[index] = (m3sda(a | {name: a[name] + step}, OF) - m3sda(a | {name: a[name] - step}, OF)) / 2e-5
        np.testing.assert_allclose(leaf.grad.numpy(), numeric, rtol=2e-3, atol=2e-5)


def test_m3sda_is_zero_for_equal_domains_with_a_finite_gradient() -> None:
    x = torch.randn(4, D, generator=torch.Generator().manual_seed(0))
    both = x.repeat(2, 1).requires_grad_(True)
    found = M3SDA(D, K)(DomainView(both, domains=torch.arange(8) // 4), DomainView(x), 0.0)
    found.backward()
    assert found.detach().item() == pytest.approx(0, abs=1e-6) and bool(both.grad.isfinite().all())
    assert "M3SDA" in losses and M3SDA.paper
    with pytest.raises(UsageError, match="order"):
        M3SDA(D, K, order=0)
    with pytest.raises(UsageError, match="at least 2 samples"):
        M3SDA(D, K)(DomainView(x[:1]), DomainView(x), 0.0)


@pytest.mark.parametrize("distances", [[0.2, 0.3], [0.1, 0.15, 0.9], [0.4, 0.4, 0.4, 0.4], [0.05, 0.3, 0.31], [0.7]])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_weights_minimise_distance_plus_spread(distances: list[float], temperature: float) -> None:
    """Against a numeric minimum over the simplex."""
    found = nearness_weights(distances, temperature=temperature)
    g = np.array(distances) / np.mean(distances)

    def objective(alpha: np.ndarray) -> float:
        return float(alpha @ g + temperature * np.linalg.norm(alpha))

    n = len(g)
    best = minimize(
        objective, np.full(n, 1 / n), bounds=[(0, 1)] * n, method="SLSQP",
        constraints={"type": "eq", "fun": lambda alpha: alpha.sum() - 1}, options={"ftol": 1e-14},
    )  # fmt: skip
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    np.testing.assert_allclose(found, best.x, atol=2e-4)
    assert (np.diff(found[np.argsort(distances)]) <= 1e-12).all()


def test_weights_of_sources_that_cannot_be_told_from_the_target_are_about_even() -> None:
    assert nearness_weights([-0.001, 0.0002, 0.0]) == pytest.approx([1 / 3] * 3, abs=0.02)
    assert nearness_weights([0.1, 0.1, 5.0], temperature=0.2)[2] == 0
    for wrong in ([], [np.nan], [0.1, np.inf]):
        with pytest.raises(UsageError, match="finite"):
            nearness_weights(wrong)


def model_of(rows: np.ndarray) -> torch.nn.Module:
    torch.manual_seed(0)
    return adapter_model(rows.astype(np.float32), K, torch.tensor([0.5, 1.0, 1.5, 1.0])).eval()


def test_a_source_counts_by_its_weight() -> None:
    a = arrays(12, 5)
    of = torch.arange(12) % 3
    batch = Batch(torch.from_numpy(a["x"]).float(), torch.from_numpy(a["labels"]), domain=of)
    model = model_of(a["x"])
    weights = torch.tensor([2.0, 0.0, 0.5])
    found = Adaptation(model, None, smoothing=0.0, source_weights=weights).eval()({"source": batch}, 0.5).loss
    with torch.no_grad():
        z = model.predict(batch.x).double().numpy()
    z = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    share = weights.numpy()[of.numpy()] * np.array([0.5, 1.0, 1.5, 1.0])[a["labels"]]
    expected = -(share * z[np.arange(12), a["labels"]]).sum() / share.sum()
    assert found.detach().item() == pytest.approx(expected, rel=1e-5)
    even = Adaptation(model, None, source_weights=torch.ones(3)).eval()({"source": batch}, 0.5).loss
    assert even.detach().item() == pytest.approx(
        Adaptation(model, None).eval()({"source": batch}, 0.5).loss.detach().item()
    )


def test_domains_travel_with_the_batch_and_change_no_batch() -> None:
    a = arrays(30, 5)
    of = np.arange(30) % 4
    plain = VectorStream(a["x"], a["labels"], batch_size=8, seed=3)
    named = VectorStream(a["x"], a["labels"], batch_size=8, seed=3, domains=of)
    where = {tuple(row): int(d) for row, d in zip(a["x"].astype(np.float32).tolist(), of, strict=True)}
    for one, other in zip(plain.epoch(1), named.epoch(1), strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y) and one.domain is None
        assert [where[tuple(row)] for row in other.x.tolist()] == other.domain.tolist()
        parts = split_batches({"source": other.to("cpu")}, 3)
        assert torch.equal(torch.cat([part["source"].domain for part in parts]), other.domain)
    with pytest.raises(DataError, match="domains of 3"):
        VectorStream(a["x"], None, batch_size=8, domains=of[:3])


def read(*roots: Path) -> Labelled:
    return read_labelled(roots, table=None, image="image", label="label", group=None, max_bad=0.0, seed=0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    day, night, _ = picture_domains(tmp_path_factory.mktemp("sources"), per_class=5)
    return read(night, day)


def test_each_folder_is_a_domain_with_the_classes_of_all(sources: Labelled) -> None:
    assert sources.names == ("night", "day") and sources.several and sources.classes == ("blobs", "stripes")
    folders = [path.parent.parent.name for path in sources.source.paths]
    assert [sources.names[d] for d in sources.domains] == folders


def test_the_same_folder_twice_is_refused(sources: Labelled) -> None:
    root = sources.source.paths[0].parents[1]
    with pytest.raises(DataError, match="name each folder once"):
        read(root, root)


def test_domains_are_called_by_their_folders(tmp_path: Path) -> None:
    names = domain_names([tmp_path / "a" / "photos", tmp_path / "b" / "photos", tmp_path / "c"])
    assert names == ("a/photos", "b/photos", "c")


def test_the_nearer_source_counts_more(sources: Labelled) -> None:
    draw = np.random.default_rng(0)
    of = sources.domains[sources.train]
    rows = draw.normal(size=(len(of), 6)) + np.where(of == 0, 3.0, 0.5)[:, None]
    target = draw.normal(size=(40, 6))
    found = measured(sources, rows, target, seed=0)
    assert [s.name for s in found] == ["night", "day"] and sum(s.weight for s in found) == pytest.approx(1)
    assert found[0].mmd2 > found[1].mmd2 and found[1].weight > 0.6
    each = sample_weights(sources, found)
    assert each[torch.from_numpy(of)].mean().item() == pytest.approx(1, rel=1e-5)
    alone = replace(sources, names=("one",), domains=np.zeros_like(sources.domains))
    assert measured(alone, rows, target, seed=0) == ()
    assert F.one_hot(torch.tensor(of)).sum(0).float() @ each == pytest.approx(len(of), rel=1e-5)
    assert SourceDomain("x", 3).to_json() == {"name": "x", "n": 3, "a_distance": None, "mmd2": None, "weight": None}


class Recorder:
    """A bench that computes no features: each picture's row says how many statistics were taken before it."""

    def __init__(self, source: Labelled) -> None:
        self.source, self.model = source, SimpleNamespace(backbone=torch.nn.BatchNorm2d(3))
        self.model.backbone.feature_dim = 2
        self.asked: list[tuple[str, list[Path]]] = []

    def source_paths(self, indices: np.ndarray) -> tuple[Path, ...]:
        return tuple(self.source.source.paths[i] for i in indices)

    def own_statistics(self, backbone: Any, paths: tuple[Path, ...]) -> None:
        self.asked.append(("statistics", list(paths)))

    def features(self, backbone: Any, paths: tuple[Path, ...], what: str) -> np.ndarray:
        self.asked.append(("features", list(paths)))
        taken = sum(kind == "statistics" for kind, _ in self.asked)
        return np.array([[taken, len(path.name)] for path in paths], dtype=np.float32)


def test_one_source_has_one_set_of_statistics_and_its_features_once(sources: Labelled) -> None:
    one = replace(sources, names=("one",), domains=np.zeros_like(sources.domains))
    bench = Recorder(one)
    train, held = FeatureCandidates(bench)._source_normalised(bench.model.backbone)  # type: ignore[arg-type]
    of_train, of_held = ([one.source.paths[i] for i in part] for part in (one.train, one.held))
    assert bench.asked == [("statistics", of_train), ("features", of_train + of_held)]
    assert train[:, 0].tolist() == [1] * len(of_train) and held[:, 0].tolist() == [1] * len(of_held)
    task = Adaptation(model_of(np.eye(4, 3)), None)
    assert task.source_weights is None and not one.several


def test_each_source_is_seen_under_its_own_statistics(sources: Labelled) -> None:
    bench = Recorder(sources)
    train, held = FeatureCandidates(bench)._source_normalised(bench.model.backbone)  # type: ignore[arg-type]
    for part, found in ((sources.train, train), (sources.held, held)):
        assert found[:, 0].tolist() == (sources.domains[part] + 1).tolist()
    assert [kind for kind, _ in bench.asked].count("statistics") == 2
    for kind, paths in bench.asked:
        assert len({path.parents[1] for path in paths}) == 1, kind
