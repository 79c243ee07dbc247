"""Several labels: how they are read, split, scored (against scikit-learn), thresholded, solved, packed."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from regraft.core.errors import DataError, UsageError
from regraft.core.types import Batch
from regraft.data.audit import audit
from regraft.data.facts import Facts
from regraft.data.reading import Reading, read_source
from regraft.data.sample import Sample
from regraft.data.source import Source
from regraft.data.split import fold_of, make_splits
from regraft.data.stratify import stratified
from regraft.images.backbones import create
from regraft.images.modality import PICTURES
from regraft.measure.metrics import metric_of
from regraft.tasks.kind import Check
from regraft.tasks.kinds import kinds, reading
from regraft.tasks.multilabel.calibration import LabelCalibration, best_thresholds, fit_calibration
from regraft.tasks.multilabel.intervals import label_bootstrap, label_gain
from regraft.tasks.multilabel.kind import LabelsKind
from regraft.tasks.multilabel.labels import LabelSets
from regraft.tasks.multilabel.metrics import log_losses, of_counts, per_label, score
from regraft.tasks.multilabel.probe import fit_label_probe
from regraft.tasks.multilabel.reading import LabelReader
from regraft.tasks.multilabel.task import MultiLabel, positive_weights
from regraft.tasks.packing import pack, unpack

NAMES = ("ant", "bee", "cat")


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


def table(folder: Path, header: list[str], rows: list[list[str]]) -> Path:
    for index in range(len(rows)):
        picture(folder / f"{index}.png", index)
    with (folder / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *header])
        writer.writerows([f"{index}.png", *row] for index, row in enumerate(rows))
    return folder / "t.csv"


def answers(n: int = 120, s: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers (N, S, 2) with ties, labels, and the logits behind them."""
    draw = np.random.default_rng(seed)
    y = (draw.random((n, s)) < [0.5, 0.2, 0.8][:s]).astype(np.int64)
    logits = np.round(2 * (2 * y - 1) + 2.5 * draw.normal(size=(n, s)), 1)
    given = LabelCalibration((0.0,) * s, (0.4,) * s).answers(logits)
    return given, y, logits


# ---- labels -----------------------------------------------------------------------------------------------------


def test_columns_of_0_and_1_are_labels_and_it_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, ["b", "a"], [["1", "0"], ["yes", "true"], ["0", "no"], ["", "1"]])
    source = read_source([], PICTURES, Reading(path, label=("b", "a"), read_labels=reading("auto")))
    assert isinstance(source.labelling, LabelSets) and source.labelling.names == ("b", "a")
    assert "labels that a picture can have together" in source.labelling.assumed
    assert source.labels().tolist() == [[1, 0], [1, 1], [0, 0]]
    assert any("1 rows" in said for said in source.skipped) and source.classes == ()
    path = table(tmp_path, ["b", "a"], [["1", "0"], ["2", "0"]])
    with pytest.raises(DataError, match=r"row 3, column 'b': got '2'"):
        read_source([], PICTURES, Reading(path, label=("b", "a"), read_labels=reading("auto")))
    with pytest.raises(DataError, match="one class"):
        read_source([], PICTURES, Reading(path, label=("b", "a"), read_labels=reading("classification")))


@pytest.mark.parametrize("sign", [";", "|", ","])
def test_a_separator_is_recognised_and_said(tmp_path: Path, sign: str) -> None:
    path = table(tmp_path, ["tags"], [[f"cat{sign} dog"], ["dog"], [f"dog{sign}cat{sign}"], ["cat"], [""]])
    source = read_source([], PICTURES, Reading(path, label="tags", read_labels=reading("auto")))
    assert isinstance(source.labelling, LabelSets) and source.labelling.names == ("cat", "dog")
    assert repr(sign) in source.labelling.assumed and "--task multilabel" in source.labelling.assumed
    assert "1 empty cells" in source.labelling.assumed
    assert source.labels().tolist() == [[1, 1], [0, 1], [1, 1], [1, 0], [0, 0]]
    assert source.strata().shape == (5, 4)


def test_names_that_hold_a_sign_stay_classes(tmp_path: Path) -> None:
    path = table(tmp_path, ["tags"], [["dog, brown"], ["cat, white"], ["dog, brown"], ["fish"]])
    source = read_source([], PICTURES, Reading(path, label="tags", read_labels=reading("auto")))
    assert source.classes == ("cat, white", "dog, brown", "fish")
    assert source.labelling is not None and "say --task multilabel" in source.labelling.assumed
    numbers = table(tmp_path, ["tags"], [["3,5"], ["4,5"], ["3,4"], ["5,5"]])
    assert read_source([], PICTURES, Reading(numbers, label="tags", read_labels=reading("auto"))).classes


def test_copies_in_several_folders_have_all_their_labels(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "cat" / f"{index}.png", index)
        picture(tmp_path / "dog" / f"d{index}.png", 10 + index)
    for index in range(2):
        shutil.copy(tmp_path / "cat" / f"{index}.png", tmp_path / "dog" / f"c{index}.png")
    usable, _, found = audit(read_source([tmp_path], PICTURES, Reading(read_labels=reading("multilabel"))), PICTURES)
    assert sorted(usable.labels().tolist()) == [[0, 1]] * 3 + [[1, 0]] + [[1, 1]] * 2
    (merged,) = [finding for finding in found.findings if finding.kind == "several-labels"]
    assert merged.count == 2 and found.n_usable + 2 == found.n_files
    usable, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    assert len(usable) == 4 and any(finding.kind == "label-conflict" for finding in found.findings)


def test_rows_that_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    sets = LabelSets(separator=";")
    assert sets.joined([("a",), ("a", "b")]) is None and sets.joined([("a",), ("a",)]) == ("a",)
    path = table(tmp_path, ["label"], [["cat"], ["dog"], ["cat"]])
    path.write_text(path.read_text() + "0.png,dog\n")
    usable, _, _ = audit(read_source([], PICTURES, Reading(path, read_labels=reading("multilabel"))), PICTURES)
    assert usable.labels().tolist() == [[1, 1], [0, 1], [1, 0]]  # a row for each label of a picture


def test_labels_that_teach_nothing_are_told() -> None:
    alike = tuple(Sample(Path(f"{i}.png"), ("a", "b")) for i in range(4))
    with pytest.raises(DataError, match="the same labels"):
        LabelSets().settled(alike, "these", 2, PICTURES.words)
    with pytest.raises(DataError, match="any label"):
        LabelSets(columns=("a",)).settled(
            tuple(Sample(Path(f"{i}.png"), ()) for i in range(4)), "these", 2, PICTURES.words
        )
    some = (*alike, *(Sample(Path(f"x{i}.png"), ("a",), None, "test" if i else None) for i in range(6)))
    found = {f.kind: f for f in LabelSets(names=("a", "b", "c")).findings(some, "pictures")}
    assert "b (4 of 10)" in found["few-pictures"].sentence and "c" in found["empty-label"].sentence
    assert "a" in found["constant-label"].sentence


# ---- splits -----------------------------------------------------------------------------------------------------


def made(n: int, seed: int, groups: int | None = None) -> tuple[Source, list[Facts]]:
    draw = np.random.default_rng(seed)
    y = draw.random((n, 4)) < [0.5, 0.1, 0.9, 0.03]
    y[0], y[1] = [1, 1, 0, 1], [0, 0, 1, 1]
    names = ("a", "b", "c", "d")
    samples = tuple(
        Sample(Path(f"{i}.png"), tuple(np.array(names)[row].tolist()), None if groups is None else f"g{i % groups}")
        for i, row in enumerate(y)
    )
    return Source("made", samples, LabelSets(names=names)), [Facts(f"{seed}-{i:05}") for i in range(n)]


@pytest.mark.parametrize("groups", [None, 60])
def test_every_part_has_and_lacks_every_label(groups: int | None) -> None:
    for seed in range(10):
        source, facts = made(300, seed, groups)
        one = make_splits(source, facts, seed=seed).rounds[0]
        y = source.labels()
        for part in (one.train, one.val, one.test):
            assert (y[part].any(axis=0) | (y.sum(axis=0) < 3)).all() and (1 - y[part]).any(axis=0).all(), seed
        again = make_splits(source, facts, seed=seed).rounds[0]
        assert np.array_equal(one.test, again.test)
        units = [source.samples[i].group or facts[i].sha256 for i in range(len(source))]
        assert not {units[i] for i in one.test} & {units[i] for i in np.concatenate([one.train, one.val])}


def test_the_shares_of_labels_are_nearer_than_by_chance() -> None:
    """Sechidis et al. 2011, table 3: label distribution, the mean difference of odds between part and whole."""
    off, by_chance = [], []
    for seed in range(10):
        source, _ = made(200, seed)
        y = source.labels()
        keys = [f"{i}" for i in range(len(y))]
        draw = np.random.default_rng(seed)
        order = {key: float(draw.random()) for key in keys}
        part = stratified(keys, y > 0, (0.8, 0.2), order)
        carved = np.array([part[key] for key in keys]) == 1
        random = np.array([order[key] < 0.2 for key in keys])
        off.append(np.abs(y[carved].mean(axis=0) - y.mean(axis=0)).mean())
        by_chance.append(np.abs(y[random].mean(axis=0) - y.mean(axis=0)).mean())
        assert carved.sum() == pytest.approx(40, abs=6)
    assert np.mean(off) < 0.4 * np.mean(by_chance)


def test_folds_of_labels_are_even_and_keep_groups() -> None:
    source, _ = made(150, 1)
    y = source.labels()
    keys = [f"k{i % 70}" for i in range(len(y))]
    fold = fold_of(keys, source.strata(), 5, 0)
    assert all(len({int(f) for key, f in zip(keys, fold, strict=True) if key == one}) == 1 for one in set(keys))
    assert all(y[fold == k].any(axis=0).all() for k in range(2)) and np.bincount(fold).min() >= 20


# ---- metrics ----------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn() -> None:
    given, y, _ = answers()
    p, hard = given[..., 0], given[..., 1].astype(int)
    assert score("map", given, y) == pytest.approx(average_precision_score(y, p, average="macro"))
    assert score("auc", given, y) == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert score("macro_f1", given, y) == pytest.approx(f1_score(y, hard, average="macro"))
    assert score("micro_f1", given, y) == pytest.approx(f1_score(y, hard, average="micro"))
    assert metric_of("map").higher_is_better
    row = per_label(given, y)[1]
    assert row["ap"] == pytest.approx(average_precision_score(y[:, 1], p[:, 1]))
    assert row["f1"] == pytest.approx(f1_score(y[:, 1], hard[:, 1])) and row["n"] == y[:, 1].sum()


def test_a_resample_is_scored_as_if_it_had_been_written_out() -> None:
    given, y, _ = answers(40)
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    for name in ("map", "macro_f1", "micro_f1", "auc"):
        found = of_counts(name, given, y)(counts)
        for value, row in zip(found, counts, strict=True):
            drawn = np.repeat(np.arange(40), row.astype(int))
            assert value == pytest.approx(score(name, given[drawn], y[drawn])), name


def test_a_label_that_is_constant_is_left_out_of_the_mean() -> None:
    given, y, _ = answers()
    y[:, 2] = 1
    assert score("auc", given, y) == pytest.approx(roc_auc_score(y[:, :2], given[:, :2, 0], average="macro"))
    y[:, 2] = 0
    expected = average_precision_score(y[:, :2], given[:, :2, 0], average="macro")
    assert score("map", given, y) == pytest.approx(expected)
    assert np.isnan(score("map", given, np.zeros_like(y)))


def test_intervals_hold_the_value_and_cancel_what_is_shared() -> None:
    given, y, logits = answers()
    for name in ("map", "macro_f1", "micro_f1", "auc"):
        found = label_bootstrap(name, given, y, resamples=200)
        assert found.low < found.value < found.high
    worse = LabelCalibration.plain(3).answers(0.2 * logits + np.random.default_rng(1).normal(size=logits.shape))
    gap = label_gain("map", given, worse, y, resamples=200)
    assert gap.value == pytest.approx(score("map", given, y) - score("map", worse, y)) and gap.low > 0
    same = label_gain("map", given, given, y)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    perfect = np.stack([y, y], axis=2).astype(float)
    assert label_bootstrap("macro_f1", perfect, y, resamples=100).low < 1


# ---- thresholds and calibration ---------------------------------------------------------------------------------


def test_thresholds_are_the_best_there_are() -> None:
    given, y, _ = answers(80)
    p = given[..., 0]
    found = best_thresholds(p, y)
    for k in range(3):
        over = p[:, k, None] >= np.linspace(0.02, 0.98, 500)
        best = (2 * (over & (y[:, k, None] > 0)).sum(axis=0) / (over.sum(axis=0) + y[:, k].sum())).max()
        assert f1_score(y[:, k], p[:, k] >= found[k]) >= best - 1e-12
    y[:, 1] = 0
    y[:2, 1] = 1
    assert best_thresholds(p, y)[1] == 0.5  # two pictures tell nothing


def test_calibration_takes_back_a_shift_and_a_scale() -> None:
    draw = np.random.default_rng(0)
    true = draw.normal(size=(4000, 2)) * 2 + [0.0, -2.0]
    y = (draw.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.int64)
    logits = 3 * true + [1.0, 2.0]
    found = fit_calibration(logits, y)
    assert found.temperature == pytest.approx(3, rel=0.1) and found.shifts == pytest.approx((1, 2), abs=0.5)
    before = log_losses(logits, y).mean()
    after = log_losses((logits - np.array(found.shifts)) / found.temperature, y).mean()
    assert after < before and after == pytest.approx(log_losses(true, y).mean(), abs=0.01)
    expected = found.answers(logits)[..., 0]
    np.testing.assert_allclose(found.finish(torch.from_numpy(logits))[0].numpy(), expected, rtol=1e-9)


def test_the_reader_names_what_is_over_its_threshold() -> None:
    reader, row = LabelReader(NAMES, (0.5, 0.2, 0.9)), np.array([0.4, 0.3, 0.85])
    found = reader.read("x.jpg", row, top=2, threshold=None)
    assert found.labels == (("bee", 0.3),) and found.top == (("cat", 0.85), ("ant", 0.4))
    assert reader.read("x.jpg", row, top=1, threshold=0.35).labels == (("cat", 0.85), ("ant", 0.4))
    assert "none of the labels" in reader.read("x.jpg", row, top=1, threshold=1.0).told()
    assert found.to_json()["labels"] == [{"label": "bee", "probability": 0.3}]


# ---- learning ---------------------------------------------------------------------------------------------------


def test_the_probe_is_scikit_learns_logistic_regression() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(150, 6)).astype(np.float32)
    y = (x @ draw.normal(size=(6, 2)) + draw.normal(size=(150, 2)) > [0, 1]).astype(np.int64)
    head = fit_label_probe(x, y, np.arange(150) % 5, (("logistic", 0.01),))
    centre, scale = x.mean(axis=0), np.sqrt(np.square(x - x.mean(axis=0)).mean())
    for k in range(2):
        model = LogisticRegression(C=1 / (0.01 * 150), tol=1e-8, max_iter=2000).fit((x - centre) / scale, y[:, k])
        expected = model.decision_function((x - centre) / scale)
        np.testing.assert_allclose(head.logits(x)[:, k], expected, atol=0.02)
    assert log_losses(head.out_of_fold, y).mean() < log_loss(y[:, 0], np.full(150, y[:, 0].mean()))
    y[:, 1] = 0
    assert np.isfinite(fit_label_probe(x, y, np.arange(150) % 5).weight).all()


def test_the_loss_is_the_weighted_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    y = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]])
    weights = positive_weights(y)
    assert weights.tolist() == pytest.approx([1.0, 3**0.5, 1.0])
    task = MultiLabel(create("scion:size=64", pretrained=False), 3, positive_weights=weights, label_smoothing=0.1)
    x = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    task.eval()
    loss = task({"train": Batch(x, torch.from_numpy(y))}, 0.0).loss
    p = task.predict(x).double().sigmoid()
    t = torch.from_numpy(y) * 0.9 + 0.05
    expected = -(weights.double() * t * p.log() + (1 - t) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_options_that_mean_nothing_are_refused() -> None:
    options = {"metric": "auto", "label_smoothing": 0.1, "mixup": 0.0, "cutmix": 0.0, "regression_loss": "huber"}
    kinds.get("multilabel").check(SimpleNamespace(**options))  # type: ignore[arg-type]
    for change, said in (({"mixup": 0.2}, "--mixup"), ({"metric": "accuracy"}, "auto, map, macro_f1")):
        with pytest.raises(UsageError, match=said):
            kinds.get("multilabel").check(SimpleNamespace(**{**options, **change}))  # type: ignore[arg-type]


def test_an_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = MultiLabel(create("scion:size=64", pretrained=False), 3).eval()
    calibration = LabelCalibration((0.1, -0.2, 0.0), (0.3, 0.5, 0.7), 1.5)
    pack(tmp_path / "a", LabelsKind(NAMES), task, calibration, provenance={}, metrics={})
    found = unpack(tmp_path / "a")
    assert found.manifest["task"]["kind"] == "image-multilabel" and found.labels == NAMES
    assert (
        found.calibration == calibration and isinstance(found.kind, LabelsKind) and found.outputs[0] == "probabilities"
    )
    x = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(found.task.predict(x), task.predict(x))


def test_an_export_that_disagrees_is_refused() -> None:
    draw = np.random.default_rng(0)
    reference = draw.random((300, 3))
    assert not LabelsKind(NAMES).compare(reference + 0.001, reference, Check()).refused
    off = reference.copy()
    off[:5] += 0.2
    assert "agree on" in LabelsKind(NAMES).compare(off, reference, Check()).refused
    assert not LabelsKind(NAMES).compare(off, reference, Check(generated=True)).refused
    assert "on average" in LabelsKind(NAMES).compare(reference + 0.03, reference, Check()).refused
