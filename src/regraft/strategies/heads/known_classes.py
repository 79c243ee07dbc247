"""The probe's prior where the weights came with a classifier: the classes that it knows and that are most like these.

A pretrained network often knows the very classes that it is to learn, or some like them, under other names. Each class
here gets one of the classifier's, by the labels of the training pictures; its row of weights is what the head is pulled
towards, in place of zero.

Papers: biased regularisation as in Kuzborskij & Orabona, "Stability and Hypothesis Transfer Learning", ICML 2013;
source classes by what the source classifier says of the target's pictures as in LEEP (Nguyen et al. 2020,
arXiv:2002.12462, section 3) and Co-Tuning (You et al., NeurIPS 2020). Differs from these in one source class for each
target class, assigned so that no two get the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from regraft.strategies.heads.ridge import Array, Indices


@dataclass(frozen=True)
class KnownClasses:
    """The classifier that came with the weights: weight (S, D) and bias (S,) over the backbone's pooled features."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> Array:
        """(N, D) → (N, S)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


def assigned(logits: Array, labels: Indices, n_classes: int) -> Indices | None:
    """For each of K classes the index of its source class, (K,), from source logits (N, S) of labelled samples.

    The assignment with the greatest sum of (mean probability within the class − largest mean probability within any
    other class); of sources that hardly speak, the mean logit decides in the same way. None where S < K or a class has
    no sample.
    """
    counts = np.bincount(labels, minlength=n_classes)
    if logits.shape[1] < n_classes or not counts.all() or n_classes < 2:
        return None
    shifted = logits - logits.max(axis=1, keepdims=True)
    probability = np.exp(shifted)
    probability /= probability.sum(axis=1, keepdims=True)
    one_hot = np.eye(n_classes)[labels].T / counts[:, None]
    # A thousandth of the logits' own contrast tells apart sources to which no probability was given at all.
    worth = _contrast(one_hot @ probability) + 1e-3 * np.tanh(_contrast(one_hot @ shifted))
    rows, columns = linear_sum_assignment(-worth)
    return np.asarray(columns[np.argsort(rows)], dtype=np.int64)


def _contrast(means: Array) -> Array:
    """Each class's mean (K, S) less the largest of the other classes."""
    order = np.sort(means, axis=0)
    largest, second = order[-1], order[-2]
    contrast: Array = means - np.where(means == largest, second, largest)
    return contrast
