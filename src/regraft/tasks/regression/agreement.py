"""Whether an exported regression gives the numbers that its model gives."""

from __future__ import annotations

from typing import Final

import numpy as np

from regraft.tasks.kind import Agreement, Check

#: How far numbers may be off on average, and one number: shares of the training numbers' deviation.
MEAN_DIFFERENCE_LIMIT: Final = 0.02
NUMBER_LIMIT: Final = 0.1


def compare_numbers(found: np.ndarray, reference: np.ndarray, scale: float, check: Check) -> Agreement:
    """Numbers (N, 1) of the file and of the model. scale: deviation of the training numbers.

    Refused is a number that is off by more than a tenth of it, or numbers off by more than 0.02 of it on average.
    Generated pictures may only disagree on average: far from the training pictures a regression is steep.
    """
    apart = np.abs(found - reference).max(axis=1) / scale
    mean, largest = float(apart.mean()), float(apart.max())
    reason = ""
    if not np.isfinite(found).all():
        reason = "it gives numbers that are not finite"
    elif mean > MEAN_DIFFERENCE_LIMIT * (5 if check.generated else 1):
        reason = f"its numbers differ by {mean:.3f} of the training numbers' deviation on average"
    elif not check.generated and largest > NUMBER_LIMIT:
        reason = f"a number differs by {largest:.3f} of the training numbers' deviation"
    told = "numbers differ by {:.2g} of the training numbers' deviation at most"
    return Agreement(float((apart <= NUMBER_LIMIT).mean()), largest, mean, reason, told)
