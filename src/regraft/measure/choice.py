"""Which candidate is kept: the simplest one that none beats credibly on validation (the one-standard-error rule).

Breiman et al., "Classification and Regression Trees", 1984, 3.4.3; here on paired differences. A few dozen validation
pictures cannot tell 94 % from 95 %, and where they cannot, the candidate that trains less is the one that generalises:
fine-tuning distorts pretrained features (Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regraft.measure.calibration import fit_temperature
from regraft.measure.metrics import metric_of
from regraft.measure.probabilities import softmax


@dataclass
class Candidate:
    """What a candidate reached on the pictures that choices are made on. logits: or numbers (N, 1).

    kept: what its strategy found on validation, JSON-ready, for a training without; note: the same for people.
    """

    name: str
    logits: np.ndarray
    labels: np.ndarray
    value: float
    selection: float
    seconds: float
    trained_parameters: int
    steps: int = 0
    best_step: int = 0
    stopped: str = "solved"
    kept: dict[str, Any] = field(default_factory=dict)
    note: str = ""


#: Differences below this are of the temperatures' search, not of the candidates.
ROUNDING = 1e-6
#: (outputs (N, K), labels (N,)) → losses (N,)
Losses = Callable[[np.ndarray, np.ndarray], np.ndarray]


def class_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-loss per sample (N,) after the temperature that suits these logits best.

    Every candidate's is fitted with the same doubt: with doubt for the faultless one alone, its confidence would count
    against it.
    """
    probabilities = softmax(logits, fit_temperature(logits, labels, doubting=True))
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)))


def choose(rounds: Sequence[Mapping[str, Candidate]], metric: str, losses_of: Losses = class_losses) -> str:
    """The name of the candidate to keep. rounds: per round the candidates by name, simplest first.

    A challenger replaces the incumbent when its mean loss is lower by more than one standard error of the paired
    difference and its `metric` is no worse. The loss of classes is the log-loss; each candidate's logits are calibrated
    first, so that label smoothing alone neither helps nor hurts.
    """
    names = list(rounds[0])
    labels = np.concatenate([r[names[0]].labels for r in rounds])
    losses = {name: losses_of(np.concatenate([r[name].logits for r in rounds]), labels) for name in names}
    sign = 1 if metric_of(metric).higher_is_better else -1
    values = {name: sign * float(np.mean([r[name].value for r in rounds])) for name in names}
    kept = names[0]
    for name in names[1:]:
        if lower_by_an_error(losses[name], losses[kept]) and values[name] >= values[kept]:
            kept = name
    return kept


def lower_by_an_error(losses: np.ndarray, others: np.ndarray) -> bool:
    """Whether losses (N,) are lower than `others` of the same samples by more than one standard error of the mean
    difference."""
    gain = others - losses
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    return bool(gain.mean() > max(error, ROUNDING))
