"""figure(samples, real): how far two sets of rows are apart, in float64 numpy, one number each.

Rows of any shape (n, *shape) are flattened to (n, D). No figure uses a pretrained network. None
means anything alone: `report.py` puts each beside a floor and a baseline.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
Labels = NDArray[np.integer]

CHUNK = 2**22  # distances held in memory at once: 32 MB


def sliced_wasserstein(
    a: Rows, b: Rows, *, rng: np.random.Generator, directions: int = 128
) -> float:
    """sqrt of the mean over unit directions d of W2(a . d, b . d)^2.

    In one dimension W2^2 is the integral over q in (0, 1) of the squared difference of the two
    quantile functions: exact here, also for unequal numbers of rows. Bonneel et al. 2015.
    """
    a, b = _flat(a), _flat(b)
    lines = rng.standard_normal((a.shape[1], directions))
    lines /= np.linalg.norm(lines, axis=0)
    edges = np.union1d(np.arange(1, len(a) + 1) / len(a), np.arange(1, len(b) + 1) / len(b))
    widths = np.diff(edges, prepend=0.0)
    middles = edges - widths / 2  # both quantile functions are constant between two edges
    gaps = (
        np.sort(a @ lines, axis=0)[(middles * len(a)).astype(int)]
        - np.sort(b @ lines, axis=0)[(middles * len(b)).astype(int)]
    )
    return float(np.sqrt((widths @ gaps**2).mean()))


def energy_distance(a: Rows, b: Rows) -> float:
    """ED^2 = 2 E|a - b| - E|a - a'| - E|b - b'|, without bias: about 0, perhaps below, if a ~ b.

    The pairs (a, a') are of two different rows (U-statistic). Szekely and Rizzo 2013.
    """
    a, b = _flat(a), _flat(b)
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"energy_distance: expected 2 rows or more, got {len(a)} and {len(b)}; give more rows"
        )
    between = sum(block.sum() for block in _distances(a, b)) / (len(a) * len(b))
    within = (
        sum(block.sum() for block in _distances(x, x)) / (len(x) * (len(x) - 1)) for x in (a, b)
    )
    return float(2 * between - sum(within))


def frechet_pixels(a: Rows, b: Rows) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of raw values: no FID.

    With C = R^T R the last trace is the sum of the singular values of R_a R_b^T, so no square root
    of a singular covariance is needed. Grows as n falls: compare at equal n. Dowson, Landau 1982.
    """
    a, b = _flat(a), _flat(b)
    root_a, root_b = _root(a), _root(b)
    spread = (root_a**2).sum() + (root_b**2).sum()
    shared = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread - 2 * shared)


def precision(real: Rows, samples: Rows, *, k: int = 5) -> float:
    """Share of samples within reach of real data; see `recall`. Blind to almost every fault."""
    return _covered(_flat(samples), _flat(real), k)


def recall(real: Rows, samples: Rows, *, k: int = 5) -> float:
    """Share of real rows r with |r - s| <= |s - (k-th nearest sample of s)| for some sample s.

    Falls when modes are missing. Kynkaanniemi et al. 2019, eq. 1 and 2, on raw values.
    """
    return _covered(_flat(real), _flat(samples), k)


def nearest_neighbour_ratio(samples: Rows, train: Rows, held_out: Rows) -> float:
    """mean min |sample - train| / mean min |held_out - train|: 1 like new data, < 0.6 a copier."""
    train = _flat(train)
    new = _nearest(_flat(held_out), train).mean()
    if not new:
        raise ValueError(
            "held_out: expected rows that are not in train, got only copies; remove repeated rows"
        )
    return float(_nearest(_flat(samples), train).mean() / new)


def classifier_accuracy(samples: Rows, labels: Labels, train: Rows, train_labels: Labels) -> float:
    """Share of samples to which an SVC fitted on real rows gives the label they were asked for."""
    return _svc(train, train_labels, samples, labels)


def train_on_samples_accuracy(
    samples: Rows, labels: Labels, held_out: Rows, held_out_labels: Labels
) -> float:
    """Accuracy on real rows of an SVC fitted on samples (CAS, Ravuri and Vinyals 2019).

    Asks for quality and variety at once.
    """
    return _svc(samples, labels, held_out, held_out_labels)


def per_class_gaussian(
    x: Rows, y: Labels, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """N(mean, covariance) of each label's rows: (n, *shape) and labels with the frequencies of y.

    mean + z R with C = R^T R draws from exactly the sample covariance, singular or not.
    """
    flat = _flat(x)
    labels = np.resize(rng.permutation(y), n).astype(np.int64)
    drawn = np.empty((n, flat.shape[1]))
    for label in np.unique(labels):
        rows, mine = flat[y == label], labels == label
        root = _root(rows)
        drawn[mine] = rows.mean(0) + rng.standard_normal((mine.sum(), len(root))) @ root
    return drawn.reshape(n, *x.shape[1:]), labels


def _flat(rows: Rows) -> NDArray[np.float64]:
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


def _root(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with R^T R the sample covariance (a zero one for a single row)."""
    scale = np.sqrt(max(len(rows) - 1, 1))
    return np.linalg.qr((rows - rows.mean(0)) / scale, mode="r")


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """|a_i - b_j| in blocks of rows of a, by |a|^2 + |b|^2 - 2 a . b: a matrix product is fast."""
    # near the origin little is lost to cancellation, and rows on a grid stay exactly on it
    origin = b[0]
    b = b - origin
    squares = (b**2).sum(1)
    size = max(1, CHUNK // len(b))
    for start in range(0, len(a), size):
        block = a[start : start + size] - origin
        square = (block**2).sum(1)[:, None] + squares - 2 * (block @ b.T)
        yield np.sqrt(np.maximum(square, 0.0))


def _nearest(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """min_j |a_i - b_j|, (n,)."""
    return np.concatenate([block.min(1) for block in _distances(a, b)])


def _covered(points: NDArray[np.float64], balls: NDArray[np.float64], k: int) -> float:
    """Share of points in a ball around some member of `balls` that reaches its k-th neighbour."""
    if len(balls) <= k:
        raise ValueError(
            f"k: expected fewer than {len(balls)} neighbours, got {k}; give more rows"
        )
    # column 0 of the sorted distances is the member itself
    reach = np.concatenate([np.partition(block, k)[:, k] for block in _distances(balls, balls)])
    inside = [(block <= reach).any(1) for block in _distances(points, balls)]
    return float(np.concatenate(inside).mean())


def _svc(fit_x: Rows, fit_y: Labels, x: Rows, y: Labels) -> float:
    """Accuracy on (x, y) of SVC(C=10, gamma=0.6) fitted on (fit_x, fit_y); tuned for X / 16."""
    from sklearn.svm import SVC

    if len(np.unique(fit_y)) == 1:  # one label only: the judge can say nothing else
        return float((np.asarray(y) == fit_y[0]).mean())
    return float(SVC(C=10, gamma=0.6).fit(_flat(fit_x), fit_y).score(_flat(x), y))
