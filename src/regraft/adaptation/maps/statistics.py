"""AdaBN: the target's own statistics in every batch-normalisation layer, and nothing else.

Paper: Li et al., "Revisiting Batch Normalization for Practical Domain Adaptation", 2016, arXiv:1603.04779. No parameter
changes and no label of any domain is read, so it takes one pass over the target's pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_statistics(module: nn.Module) -> bool:
    """Whether there is a batch-normalisation layer that keeps statistics: without one AdaBN changes nothing."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in module.modules())


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Any]) -> int:
    """Put the inputs' statistics into the batch-normalisation layers of `module`; returns how many batches there were.

    Every layer gets the mean over the batches of their means and variances, each batch computed with its own (as in
    training). Batches of one sample are passed over: a variance needs two. Modes are as before afterwards; without any
    usable batch the statistics stay.
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(m, m.momentum, m.training, {k: v.clone() for k, v in m.state_dict().items()}) for m in layers]
    modes = {name: m.training for name, m in module.named_modules()}
    module.eval()
    for m in layers:
        m.reset_running_stats()
        m.momentum = None  # a plain average over the batches
        m.train()
    count = 0
    for x in batches:
        if len(x) > 1:
            module(x)
            count += 1
    for m, momentum, _, state in kept:
        m.momentum = momentum
        if count == 0:
            m.load_state_dict(state)
    for name, m in module.named_modules():
        m.training = modes[name]
    return count
