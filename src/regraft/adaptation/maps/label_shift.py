"""Label shift: how often each class occurs in the target, told from predictions alone, and what to do about it.

Both estimates assume that a class looks the same in both domains and only its frequency differs. Where looks differ
too, they say how a model's answers are distributed, not how the classes are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from regraft.core.errors import DataError, UsageError

Array = NDArray[np.float64]

#: The weight of "shares sum to 1" beside the equations of the confusion matrix.
SUM_WEIGHT = 1e3
#: A prior below this counts as this in a logarithm.
SMALLEST = 1e-12


def bbse(
    source_probabilities: np.ndarray, labels: np.ndarray, target_probabilities: np.ndarray, *, soft: bool = False
) -> Array:
    """Black-box shift estimation: the target's class shares (K,), on the simplex.

    Paper: Lipton et al., "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018,
    arXiv:1802.03916. source_probabilities (N, K) of held-out source samples with labels (N,);
    target_probabilities (M, K). soft: mean probabilities in place of counts of the top class.

    Differs from the paper: solves for the shares, not for their ratio to the source's, by least squares over the
    simplex, where the paper inverts the matrix and may get negative weights. Raises DataError for shapes that do not
    fit, values that are not finite, or a class without a held-out sample, whose column would be unknown.
    """
    p, q = _checked(source_probabilities), _checked(target_probabilities)
    labels = np.asarray(labels)
    classes = p.shape[1]
    if labels.shape != (len(p),) or q.shape[1] != classes or (labels < 0).any() or (labels >= classes).any():
        raise DataError(f"BBSE got probabilities {p.shape} and {q.shape} with labels {labels.shape}; they do not fit.")
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise DataError(
            f"BBSE needs a held-out sample of every class; there is none of {np.flatnonzero(counts == 0).tolist()}."
        )
    answers, wanted = (p, q.mean(axis=0)) if soft else (_top(p), _top(q).mean(axis=0))
    # Column j: how the model answers where the class is j. Its product with the target's shares is what it answers.
    confusion = answers.T @ np.eye(classes)[labels] / counts
    equations = np.vstack([confusion, np.full(classes, SUM_WEIGHT)])
    shares, _ = nnls(equations, np.append(wanted, SUM_WEIGHT))
    return np.asarray(shares / shares.sum())


def em_prior(
    target_probabilities: np.ndarray, source_prior: np.ndarray, *, iterations: int = 1000, tolerance: float = 1e-8
) -> Array:
    """The target's class shares (K,) of most likelihood, by expectation maximisation.

    Paper: Saerens, Latinne & Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities",
    Neural Computation 14, 2002, eq. 2.9. target_probabilities (M, K) of a calibrated model that was trained where the
    classes had source_prior (K,). Stops when no share moves by more than `tolerance`. Raises DataError for
    probabilities and UsageError for a prior that cannot be one.
    """
    q = _checked(target_probabilities)
    start = _prior(source_prior, q.shape[1])
    shares = start
    for _ in range(iterations):
        found = reweigh(q, start, shares).mean(axis=0)
        moved = float(np.abs(found - shares).max())
        shares = found
        if moved < tolerance:
            break
    return shares


def importance_weights(source_prior: np.ndarray, target_prior: np.ndarray) -> Array:
    """How much a source sample of each class weighs in the target, (K,): target_prior / source_prior.

    A class in neither weighs 0. Raises DataError where the target has a class that the source lacks, UsageError for
    what is no prior.
    """
    p = _prior(source_prior)
    q = _prior(target_prior, len(p))
    missing = np.flatnonzero((p == 0) & (q > 0))
    if len(missing):
        raise DataError(f"The target has classes {missing.tolist()}, of which the source has no sample.")
    return np.divide(q, p, out=np.zeros_like(q), where=p > 0)


def reweigh(probabilities: np.ndarray, source_prior: np.ndarray, target_prior: np.ndarray) -> Array:
    """Probabilities (N, K) as they are under another prior (K,): times target_prior / source_prior, normalised.

    Saerens et al. 2002, eq. 2.4. A row that is left without mass becomes the target's prior.
    """
    p = _checked(probabilities)
    weights = importance_weights(source_prior, target_prior)
    changed = p * weights
    total = changed.sum(axis=1, keepdims=True)
    return np.where(total > 0, changed / np.where(total > 0, total, 1.0), _prior(target_prior, p.shape[1]))


def prior_offset(source_prior: np.ndarray, target_prior: np.ndarray) -> Array:
    """What to add to logits, or once to a head's bias, (K,), so that their softmax is `reweigh` of the old one.

    log target_prior − log source_prior, each share counting as at least 1e-12.
    """
    p = _prior(source_prior)
    q = _prior(target_prior, len(p))
    return np.asarray(np.log(np.maximum(q, SMALLEST)) - np.log(np.maximum(p, SMALLEST)))


def _top(probabilities: Array) -> Array:
    return np.asarray(np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)])


def _checked(probabilities: np.ndarray) -> Array:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or len(p) == 0 or not np.isfinite(p).all() or (p < 0).any():
        raise DataError(f"Label shift is told from finite probabilities (N, K) of at least one sample; {p.shape} came.")
    return p


def _prior(prior: np.ndarray, classes: int | None = None) -> Array:
    p = np.asarray(prior, dtype=np.float64)
    if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or not p.sum() > 0:
        raise UsageError(f"A prior is one share ≥ 0 for each class; {p.tolist()} came.")
    if classes is not None and len(p) != classes:
        raise UsageError(f"A prior over {len(p)} classes came for {classes} classes.")
    return np.asarray(p / p.sum())
