"""Whether an exported classifier says what its model says."""

from __future__ import annotations

from typing import Final

import numpy as np

from regraft.tasks.kind import Agreement, Check

#: One grey level of rounding in the resize moves probabilities by far less than this, on average over the samples.
MEAN_DIFFERENCE_LIMIT: Final = 0.02
#: Two labels whose probabilities are nearer than this are tied: one grey level decides between them.
TIE: Final = 0.02


def compare_probabilities(found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
    """Probabilities (N, K) of the file and of the model.

    Refused is: top-1 agreement below `check.least` (one picture whose two labels are tied in the model is excused,
    since among fewer than 200 pictures one alone would decide); accuracy lower by more than max(1 picture, 0.5 %);
    probabilities apart by more than 0.02 on average. Agreement and accuracy are not asked of generated pictures, on
    which a model may be undecided everywhere.
    """
    n = len(reference)
    ours, theirs = reference.argmax(axis=1), found.argmax(axis=1)
    rows = np.arange(n)
    flipped = ours != theirs
    tied = reference[rows, ours] - reference[rows, theirs] < TIE
    hard = int(flipped.sum()) - min(1, int((flipped & tied).sum()))
    apart = np.abs(found - reference).max(axis=1)
    labels = check.labels
    right = None if labels is None else (int((ours == labels).sum()), int((theirs == labels).sum()))
    mean = float(apart.mean())
    reason = ""
    if not np.isfinite(found).all():
        reason = "it gives probabilities that are not numbers"
    elif mean > MEAN_DIFFERENCE_LIMIT:
        reason = f"its probabilities differ by {mean:.3f} on average (largest {apart.max():.3f})"
    elif not check.generated and 1 - hard / n < check.least:
        reason = f"its first label agrees on {1 - flipped.mean():.2%}, below {check.least:.2%}"
    elif right and right[0] - right[1] > max(1, 0.005 * n):
        reason = f"its accuracy falls from {right[0] / n:.2%} to {right[1] / n:.2%}"
    return Agreement(
        float(1 - flipped.mean()), float(apart.max()), mean, reason, "probabilities differ by {:.2g} at most",
        right[0] / n if right else None, right[1] / n if right else None,
    )  # fmt: skip
