"""Fine-tuning, and then back as far as serves: the weights between the pretrained and the fine-tuned ones.

Paper: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv:2109.01903, section 3 (WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from regraft.core.types import Task
from regraft.strategies.base import Finished, Judge, register
from regraft.strategies.finetune import Finetune

#: How much of the way from the start to the fine-tuned weights is tried.
SHARES = (0.25, 0.5, 0.75, 1.0)


@register
class WiSE(Finetune):
    """Trains as fine-tuning does; of the weights on the line from its start to its end validation picks.

    The start is the pretrained network under the probe's head, in the paper a zero-shot classifier. Statistics of batch
    normalisation lie on the same line. Of equal shares the smallest is taken. Without validation it is the mean of the
    shares that were picked with it.
    """

    name = "wise"
    usual = False
    cost = 50

    def prepare(self, task: Task, seed: int) -> Task:
        self.start = _copied(task)
        return task

    def finish(self, task: Task, judge: Judge | None, known: Sequence[Mapping[str, Any]]) -> Finished:
        end = _copied(task)
        share = mean(float(one["share"]) for one in known) if known else 1.0
        if judge is not None:
            scores = {}
            for tried in SHARES:
                task.load_state_dict(between(self.start, end, tried))
                scores[tried] = judge(task)
            share = max(SHARES, key=lambda one: scores[one])
        task.load_state_dict(between(self.start, end, share))
        return Finished(
            task, {"share": share}, f"{share:.0%} of the way from the pretrained to the fine-tuned weights."
        )


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The state at this share of the way from one to the other; counters are the end's."""
    return {
        name: torch.lerp(start[name], last, share) if last.is_floating_point() else last for name, last in end.items()
    }


def _copied(task: Task) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in task.state_dict().items()}
