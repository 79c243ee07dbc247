"""Dense averaging of weights along a training, over the stretch that validation finds flat.

Paper: Cha et al., "SWAD: Domain Generalization by Seeking Flat Minima", NeurIPS 2021, arXiv:2102.08604, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.core.errors import UsageError

#: N_s, N_e and r of the paper: evaluations to see an optimum, to see overfitting, and the tolerated rise of the loss.
CONVERGED, TOLERATED, RATIO = 3, 6, 1.3


def swad_window(
    losses: Sequence[float], *, converged: int = CONVERGED, tolerated: int = TOLERATED, ratio: float = RATIO
) -> tuple[int, int]:
    """First and last index, both included, of the validation losses between which weights are averaged.

    Algorithm 1: the stretch starts at the first loss that is the least of itself and the `converged` − 1 after it; the
    mean of these times `ratio` is the limit. It ends before the first `tolerated` losses in a row that are all above
    the limit. A training without such a start is averaged as a whole, one without such an end to its last loss.
    Differs from the paper: indices count evaluations, not steps. Raises UsageError for no loss or impossible settings.
    """
    if not losses or converged < 1 or tolerated < 1 or not ratio > 0:
        raise UsageError(
            f"A window needs losses, converged and tolerated from 1 on and a positive ratio; {len(losses)} losses, "
            f"{converged}, {tolerated} and {ratio} came."
        )
    start, limit = 0, None
    for i in range(len(losses)):
        if limit is None:
            recent = losses[i - converged + 1 : i + 1] if i + 1 >= converged else []
            if recent and recent[0] == min(recent):
                start, limit = i - converged + 1, ratio * sum(recent) / converged
        elif i + 1 >= tolerated and min(losses[i - tolerated + 1 : i + 1]) > limit:
            return start, max(start, i - tolerated)
    return start, len(losses) - 1


class DenseAverage:
    """Sums of the weights after every step, one for each stretch between two evaluations.

    A stretch belongs to the evaluation at its end, so the average holds the steps of the first stretch too, of which
    the paper has the last alone.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._sums: list[dict[str, Tensor]] = []
        self._counts: list[int] = []
        self._open: dict[str, Tensor] = {}
        self._count = 0

    @torch.no_grad()
    def add(self, module: nn.Module) -> None:
        """The weights after one step."""
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                wide = value.detach().double()
                self._open[name] = self._open[name] + wide if name in self._open else wide.clone()
        self._count += 1

    def close(self, loss: float) -> None:
        """The validation loss at the end of a stretch; without a step since the last one there is none."""
        if self._count:
            self.losses.append(loss)
            self._sums.append(self._open)
            self._counts.append(self._count)
            self._open, self._count = {}, 0

    def average(self) -> dict[str, Tensor]:
        """The mean of the floating state entries over the window, float64 by name. Raises UsageError before any."""
        start, end = swad_window(self.losses)
        count = sum(self._counts[start : end + 1])
        return {
            name: torch.stack([part[name] for part in self._sums[start : end + 1]]).sum(dim=0) / count
            for name in self._sums[0]
        }
