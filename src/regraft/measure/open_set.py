"""How well a model names the classes that it knows and rejects those that it does not."""

from __future__ import annotations

import numpy as np

from regraft.core.errors import DataError


def open_set_figures(answers: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, float | None]:
    """OS*, UNK and their harmonic mean HOS, of answers and labels (N,) in 0…n_classes, where n_classes is unknown.

    Paper: Bucci, Loghmani & Tommasi, "On the Effectiveness of Image Rotation for Open Set Domain Adaptation", ECCV
    2020, arXiv:2007.12576: `os_star` is the mean over the known classes that occur of the share that gets its own
    name, `unk` the share of the unknown that is called so, `hos` = 2 · os_star · unk / (os_star + unk), 0 where both
    are. What no sample tells is None. Raises DataError for shapes that do not fit.
    """
    answers, labels = np.asarray(answers), np.asarray(labels)
    if answers.shape != labels.shape or labels.ndim != 1 or len(labels) == 0:
        raise DataError(f"Open-set figures take one answer for each label; {answers.shape} and {labels.shape} came.")
    right = answers == labels
    shares = [float(right[labels == k].mean()) for k in np.unique(labels) if k < n_classes]
    strange = labels == n_classes
    known = float(np.mean(shares)) if shares else None
    unknown = float(right[strange].mean()) if strange.any() else None
    both = None
    if known is not None and unknown is not None:
        both = 2 * known * unknown / (known + unknown) if known + unknown > 0 else 0.0
    return {"os_star": known, "unk": unknown, "hos": both}
