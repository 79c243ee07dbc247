"""Whether an exported model gives the probabilities of several labels that its model gives."""

from __future__ import annotations

from typing import Final

import numpy as np

from regraft.tasks.kind import Agreement, Check

#: How far probabilities may be off on average, and one of a sample that counts as the same answer.
MEAN_DIFFERENCE_LIMIT: Final = 0.02
SAME: Final = 0.05


def compare_labels(found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
    """Probabilities (N, S) of the file and of the model.

    The same answer is one in which every label's probability is off by at most 0.05. Refused are probabilities that are
    off by more than 0.02 on average, and too few of the same answers; of generated pictures only the first is asked.
    """
    apart = np.abs(found - reference).max(axis=1)
    mean, agreement = float(apart.mean()), float((apart <= SAME).mean())
    allowed = max(1, round((1 - check.least) * len(apart)))
    reason = ""
    if not np.isfinite(found).all():
        reason = "it gives probabilities that are not numbers"
    elif mean > MEAN_DIFFERENCE_LIMIT:
        reason = f"its probabilities differ by {mean:.3f} on average (largest {apart.max():.3f})"
    elif not check.generated and int((apart > SAME).sum()) > allowed:
        reason = f"its probabilities agree on {agreement:.2%}, below {check.least:.2%}"
    return Agreement(agreement, float(apart.max()), mean, reason, "probabilities differ by {:.2g} at most")
