"""Sentences of the Stanford Sentiment Treebank, train → test: a frozen encoder's probe, the same encoder fine-tuned in
a budget beside its control from scratch, and TF-IDF with logistic regression as the rival that costs seconds.

    python bench/text.py shared/data/text/sst2 shared/weights/all-MiniLM-L6-v2 --budget 10m
    python bench/text.py shared/data/text/sst2 shared/weights/all-MiniLM-L6-v2 --probe

The folder has train.tsv, dev.tsv and test.tsv: a sentence, a tab, 0 or 1. Validation is the dev part, and the test is
scored once. The rival's one strength is chosen on validation, too. Socher et al., "Recursive Deep Models for Semantic
Compositionality Over a Sentiment Treebank", EMNLP 2013. Intervals: 95 % bootstrap over the test sentences; differences
are paired.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

import regraft
from regraft.measure.bootstrap import bootstrap, paired_gain

PARTS = {"train": "train", "dev": "val", "test": "test"}
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
CLASSES = ("negative", "positive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--probe", action="store_true", help="the probe alone, without training")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sentences = {part: read(arguments.data / f"{part}.tsv") for part in PARTS}
    table = arguments.runs / "sst2.csv"
    write(table, sentences)
    started = time.monotonic()
    options = {"strategies": ("probe",)} if arguments.probe else {"budget": arguments.budget}
    run = regraft.fit(
        table, text="sentence", label="label", split="split", backbone=str(arguments.backbone), seed=arguments.seed,
        runs=arguments.runs, **options,
    )  # fmt: skip
    spent = time.monotonic() - started
    began = time.monotonic()
    rival, labels = tf_idf(sentences)
    rival_s = time.monotonic() - began
    found = answers(run.path)
    print(f"sst2: {len(sentences['train'])} training, {len(labels)} test sentences; run {run.path} ({spent:.0f} s)")
    figures = {"tf_idf": told("TF-IDF + logistic regression", rival, labels, f"{rival_s:.1f} s")}
    for name, (probabilities, of) in found.items():
        figures[name] = told(name, probabilities, of, "")
        gain = paired_gain("accuracy", probabilities, rival_in(run.path, table, name, rival), of, seed=arguments.seed)
        print(f"  {'':30} against TF-IDF {gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]")
    report = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    print(f"  chosen: {report['chosen']}. {report['verdict']}")
    print(json.dumps({"chosen": report["chosen"], "seconds": round(spent), **figures}))


def read(path: Path) -> list[tuple[str, int]]:
    """(sentence, label) of each line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(line.rpartition("\t")[0], int(line.rpartition("\t")[2])) for line in lines if line.strip()]


def write(table: Path, sentences: dict[str, list[tuple[str, int]]]) -> None:
    """One table of all parts, with the part in a column."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["sentence", "label", "split"])
        for part, split in PARTS.items():
            rows.writerows([text, CLASSES[label], split] for text, label in sentences[part])


def tf_idf(sentences: dict[str, list[tuple[str, int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 2) for the test sentences by words and pairs of words, and their labels (N,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = {part: [text for text, _ in rows] for part, rows in sentences.items()}
    y = {part: np.array([label for _, label in rows]) for part, rows in sentences.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    train, dev, test = (
        words.fit_transform(texts["train"]),
        words.transform(texts["dev"]),
        words.transform(texts["test"]),
    )
    models = [LogisticRegression(C=strength, max_iter=1000).fit(train, y["train"]) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(dev, y["dev"]))
    return np.asarray(best.predict_proba(test)), y["test"]


def rows_of(run: Path, name: str) -> list[dict[str, object]]:
    """The rows of one candidate on the test."""
    rows = parquet.read_table(run / "predictions.parquet").to_pylist()
    return [row for row in rows if row["split"] == "test" and row["candidate"] == name]


def answers(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every candidate: probabilities (N, 2) and labels (N,) of the test sentences that the audit left in."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    found = {}
    for candidate in report["candidates"]:
        rows = rows_of(run, candidate["name"])
        found[candidate["name"]] = (
            np.array([row["probabilities"] for row in rows]),
            np.array([row["label"] for row in rows]),
        )
    return found


def rival_in(run: Path, table: Path, name: str, rival: np.ndarray) -> np.ndarray:
    """The rival's answers for the same sentences, in the order of the candidate's rows."""
    with table.open(newline="", encoding="utf-8") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    place = {number: i for i, number in enumerate(n for n, split in enumerate(splits, start=2) if split == "test")}
    return rival[[place[int(str(row["path"]).rpartition(":")[2])] for row in rows_of(run, name)]]


def told(name: str, probabilities: np.ndarray, labels: np.ndarray, note: str) -> list[float]:
    """One line: accuracy with its interval; returns the three."""
    found = bootstrap("accuracy", probabilities, labels)
    print(
        f"  {name:30} {found.value:.1%} [{found.low:.1%}, {found.high:.1%}] on {len(labels)} sentences {note}".rstrip()
    )
    return [found.value, found.low, found.high]


if __name__ == "__main__":
    main()
