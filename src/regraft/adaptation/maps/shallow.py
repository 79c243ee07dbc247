"""Adaptation without training: maps of cached features that bring the two domains together.

A method maps the source and the target into one space, where a linear head is solved on the source. Every map is
affine, so the target's folds into that head: the adapted model is the same network with another last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from regraft.adaptation.evidence.distances import checked_pair, squared_distances
from regraft.adaptation.losses.transport import class_transport
from regraft.core.errors import UsageError
from regraft.core.registry import Registry

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Directions that SA and TCA keep, where the samples span as many.
DIMENSIONS = 80


@dataclass(frozen=True)
class Affine:
    """x ↦ x @ matrix + offset. matrix (D, D'), or (D,) for a diagonal one; offset (D',)."""

    matrix: Array
    offset: Array

    def __call__(self, features: np.ndarray) -> Array:
        """(N, D) → (N, D') float64."""
        x = np.asarray(features, dtype=np.float64)
        return np.asarray((x * self.matrix if self.matrix.ndim == 1 else x @ self.matrix) + self.offset)

    def fold(self, weight: np.ndarray, bias: np.ndarray) -> tuple[Array, Array]:
        """The head for unmapped features that gives what weight (K, D') and bias (K,) give for mapped ones."""
        weight = np.asarray(weight, dtype=np.float64)
        folded = weight * self.matrix if self.matrix.ndim == 1 else weight @ self.matrix.T
        return folded, bias + weight @ self.offset


@dataclass(frozen=True)
class Mapped:
    """What a method found. source: the mapped source (N, D') float64, to solve a head on.

    map_source: for further source rows. map_target: for the target's rows, those fitted and any later ones.
    """

    source: Array
    map_source: Affine
    map_target: Affine

    def fold(self, weight: np.ndarray, bias: np.ndarray) -> tuple[Array, Array]:
        """A head (K, D'), (K,) for mapped features as a head (K, D), (K,) for the target's own."""
        return self.map_target.fold(weight, bias)


class ShallowMethod:
    """Fits maps to source features (N, D) with labels (N,) int64 and target features (M, D), N and M ≥ 2.

    All computation is in float64.
    """

    #: Where the method is from: authors, year, arXiv id or venue.
    paper: ClassVar[str] = ""
    #: Whether it reads the source's labels as classes, and so has no meaning for numbers.
    reads_labels: ClassVar[bool] = False

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        """Raises DataError for fewer than 2 rows, values that are not finite, or unlike widths."""
        raise TypeError(f"{type(self).__name__} does not define fit")


#: name → class
shallow: Registry[type[ShallowMethod]] = Registry("shallow adaptation")


@shallow.register("standardise")
class Standardise(ShallowMethod):
    """Each domain by its own mean and deviation per coordinate: AdaBN, applied once, to the last features.

    Paper: Li et al., "Revisiting Batch Normalization for Practical Domain Adaptation", 2016, arXiv:1603.04779. Differs
    from it: the paper does so in every normalisation layer. A deviation counts as at least a tenth of the other
    domain's: a coordinate that is silent in a small target must not explode when it speaks later.
    """

    paper = "Li et al., 2016, arXiv:1603.04779"

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        x, y = checked_pair(source, target)
        p, q = x.std(axis=0), y.std(axis=0)
        least = 1e-3 * common_unit(x, y)
        of_source = _standard(x, np.maximum(p, np.maximum(q / 10, least)))
        return Mapped(of_source(x), of_source, _standard(y, np.maximum(q, np.maximum(p / 10, least))))


def _standard(rows: Array, deviation: Array) -> Affine:
    return Affine(1 / deviation, -rows.mean(axis=0) / deviation)


@shallow.register("CORAL")
class CORAL(ShallowMethod):
    """Whitens the source and colours it with the target's covariance; the target stays as it is.

    Paper: Sun et al., "Return of Frustratingly Easy Domain Adaptation", AAAI 2016, arXiv:1511.05547, algorithm 1:
    covariances plus the identity. Differs from it: the paper standardises every coordinate of each domain first; here
    all are divided by one common deviation, in which unit `identity` is, and the source's mean becomes the target's.

    identity: how much of it is added. Unless told it is (1 + √(D / n))², n of the smaller domain: the largest
    eigenvalue that n samples of white noise show, so that the map believes more than sampling noise; near the paper's 1
    for n ≫ D. With 490 samples of 1,280 features of PACS the paper's 1 was worse. Raises UsageError unless it is > 0.
    """

    paper = "Sun et al., AAAI 2016, arXiv:1511.05547"

    def __init__(self, *, identity: float | None = None) -> None:
        if identity is not None and not identity > 0:
            raise UsageError(f"CORAL got identity={identity}: a number above 0 is needed.")
        self.identity = identity

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        x, y = checked_pair(source, target)
        noise = (1 + np.sqrt(x.shape[1] / min(len(x), len(y)))) ** 2
        added = float((self.identity or noise) * common_unit(x, y) ** 2)
        matrix = _covariance_power(x, -0.5, added) @ _covariance_power(y, 0.5, added)
        of_source = Affine(matrix, y.mean(axis=0) - x.mean(axis=0) @ matrix)
        return Mapped(of_source(x), of_source, _unchanged(x.shape[1]))


def _covariance_power(rows: Array, exponent: float, added: float) -> Array:
    """(covariance + added · I) to the power `exponent`, (D, D); directions without samples are known without work."""
    directions, scatter = principal_directions(rows - rows.mean(axis=0))
    beside: float = added**exponent
    inside = (scatter / (len(rows) - 1) + added) ** exponent - beside
    power = (directions * inside) @ directions.T
    power[np.diag_indices_from(power)] += beside
    return np.asarray(power)


@shallow.register("SA")
class SA(ShallowMethod):
    """Subspace alignment: the source's principal directions are turned onto the target's.

    Paper: Fernando et al., "Unsupervised Visual Domain Adaptation Using Subspace Alignment", ICCV 2013. D' is
    `dimensions`, or as many as both domains span. Differs from the paper: each domain is centred, its coordinates
    are not standardised; the dimension is given, not read off the stability bound. UsageError for dimensions < 1.
    """

    paper = "Fernando et al., ICCV 2013"

    def __init__(self, *, dimensions: int = DIMENSIONS) -> None:
        self.dimensions = _positive(dimensions, "SA")

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        x, y = checked_pair(source, target)
        centre, other = x.mean(axis=0), y.mean(axis=0)
        p, q = principal_directions(x - centre)[0], principal_directions(y - other)[0]
        kept = min(self.dimensions, p.shape[1], q.shape[1])
        p, q = p[:, :kept], q[:, :kept]
        turned = p @ (p.T @ q)
        of_source = Affine(turned, -centre @ turned)
        return Mapped(of_source(x), of_source, Affine(q, -other @ q))


@shallow.register("TCA")
class TCA(ShallowMethod):
    """Transfer component analysis with a linear kernel: much variance, little distance between the domains' means.

    Paper: Pan et al., "Domain Adaptation via Transfer Component Analysis", IEEE Transactions on Neural Networks 22,
    2011: the leading eigenvectors of (K L K + μ I)⁻¹ K H K, K over both domains. With a linear kernel L has rank
    one, K = U S² Uᵀ and only directions in the samples' span count, so it is one symmetric eigenproblem of at most
    min(N + M − 1, D) coordinates. One affine map serves both domains; D' is `dimensions` or as many as there are.

    penalty: μ over N + M, for samples centred on their common mean and scaled to a mean squared norm of 1. Differs from
    the paper: it fixes no length for the components, whose deviation with a linear kernel is the square of PCA's; here
    each is divided by its deviation's root. Raises UsageError unless dimensions ≥ 1 and penalty > 0.
    """

    paper = "Pan et al., IEEE Transactions on Neural Networks 22, 2011"

    def __init__(self, *, dimensions: int = DIMENSIONS, penalty: float = 1e-3) -> None:
        if not penalty > 0:
            raise UsageError(f"TCA got penalty={penalty}: a number above 0 is needed.")
        self.dimensions, self.penalty = _positive(dimensions, "TCA"), penalty

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        x, y = checked_pair(source, target)
        rows = np.concatenate([x, y])
        centre = rows.mean(axis=0)
        scale = float(np.sqrt(np.square(rows - centre).sum(axis=1).mean())) or 1.0
        directions, squares = principal_directions((rows - centre) / scale)
        # L = e eᵀ, so K L K = b bᵀ in the coordinates U, and its inverse root with μ I is known in closed form.
        gap = (x.mean(axis=0) - y.mean(axis=0)) / scale
        b = np.sqrt(squares) * (directions.T @ gap)
        length, added = float(b @ b), self.penalty * len(rows)
        shrink = (1 - np.sqrt(added / (added + length))) / (length or 1.0)
        root = np.eye(len(b)) - shrink * np.outer(b, b)
        kept = min(self.dimensions, len(b))
        values, vectors = scipy.linalg.eigh(
            (root * squares**2) @ root, subset_by_index=(len(b) - kept, len(b) - 1), check_finite=False
        )
        matrix = (directions * np.sqrt(squares)) @ (root @ vectors[:, ::-1])
        matrix = matrix / (np.maximum(values[::-1], 1e-300) / len(rows)) ** 0.25 / scale
        both = Affine(matrix, -centre @ matrix)
        return Mapped(both(x), both, both)


@shallow.register("OT")
class OT(ShallowMethod):
    """Optimal transport: every source row goes to the mean of the target rows that its mass is sent to.

    Papers: Courty et al., "Optimal Transport for Domain Adaptation", TPAMI 2017, arXiv:1507.00504, with their class
    regularisation, see `class_transport`; Perrot et al., "Mapping Estimation for Discrete Optimal Transport", NeurIPS
    2016. The target stays as it is. The source's map is the affine one that comes nearest to those means under a ridge
    penalty, so that it serves rows that were not fitted; Perrot et al. fit it and the plan together, here the plan is
    first. Reads the labels.

    entropy, class_weight: as multiples of the median squared distance, chosen on PACS with its labels in sight; with a
    class_weight of 0 the method was no better there than none. ridge: of the mean squared norm. Above `rows` rows of a
    domain that many are drawn with `seed`. Assumes that both domains have the same shares of the classes. Raises
    UsageError unless entropy > 0, class_weight ≥ 0, ridge > 0 and rows ≥ 2.
    """

    reads_labels = True
    paper = "Courty et al., TPAMI 2017, arXiv:1507.00504"

    def __init__(
        self,
        *,
        entropy: float = 0.2,
        class_weight: float = 0.5,
        ridge: float = 0.1,
        rows: int = 1000,
        seed: int = 0,
    ) -> None:
        if not (entropy > 0 and class_weight >= 0 and ridge > 0 and rows >= 2):
            raise UsageError(
                f"OT got entropy={entropy}, class_weight={class_weight}, ridge={ridge} and rows={rows}; accepted: "
                "entropy and ridge above 0, class_weight from 0, rows from 2."
            )
        self.entropy, self.class_weight, self.ridge = entropy, class_weight, ridge
        self.rows, self.seed = rows, seed

    def fit(self, source: np.ndarray, labels: Indices, target: np.ndarray) -> Mapped:
        everything, y = checked_pair(source, target)
        draw = np.random.default_rng(self.seed)
        some = np.sort(draw.permutation(len(everything))[: self.rows])
        x, y = everything[some], y[np.sort(draw.permutation(len(y))[: self.rows])]
        cost = squared_distances(x, y)
        cost = cost / (float(np.median(cost)) or float(cost.mean()) or 1.0)
        plan = class_transport(cost, np.asarray(labels)[some], self.entropy, self.class_weight)
        images = plan @ y / plan.sum(axis=1, keepdims=True)
        # Ridge regression of the images on the rows, solved among the rows.
        centre, middle = x.mean(axis=0), images.mean(axis=0)
        rows = x - centre
        gram = rows @ rows.T
        gram[np.diag_indices_from(gram)] += self.ridge * (float(np.trace(gram)) / len(rows) or 1.0)
        matrix = rows.T @ np.linalg.solve(gram, images - middle)
        of_source = Affine(matrix, middle - centre @ matrix)
        return Mapped(of_source(everything), of_source, _unchanged(x.shape[1]))


def common_unit(x: Array, y: Array) -> float:
    """The root mean variance per coordinate within the domains, 1 where nothing varies."""
    return float(np.sqrt((x.var(axis=0).mean() + y.var(axis=0).mean()) / 2)) or 1.0


def principal_directions(centred: Array) -> tuple[Array, Array]:
    """(D, R) orthonormal directions that centred samples (N, D) span, and their sums of squares (R,), falling.

    With fewer samples than coordinates it is solved among the samples. Where all samples are the same, R = 1 and the
    sum is 0.
    """
    n, d = centred.shape
    values, vectors = np.linalg.eigh(centred @ centred.T if n < d else centred.T @ centred)
    kept = values > max(float(values[-1]), 0.0) * 1e-10
    if not kept.any():
        return np.eye(d, 1), np.zeros(1)
    values, vectors = values[kept][::-1], vectors[:, kept][:, ::-1]
    return (centred.T @ vectors / np.sqrt(values) if n < d else vectors), values


def _unchanged(dimension: int) -> Affine:
    return Affine(np.ones(dimension), np.zeros(dimension))


def _positive(dimensions: int, method: str) -> int:
    if dimensions < 1:
        raise UsageError(f"{method} got dimensions={dimensions}: at least 1 is needed.")
    return dimensions
