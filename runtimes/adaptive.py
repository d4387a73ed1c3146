"""y <- y + h sum_i b_i k_i,  k_i = field(y + h sum_j a_ij k_j, t + c_i h),  error = h sum_i e_i k_i.

An embedded pair of Runge-Kutta formulas says of every step how wrong it was, and the next h follows
from that. Each row of a batch has its own clock, its own h and its own verdict, and every number of a
row is made from that row alone: whom it is solved beside changes nothing, not even the last bit. A
call of the field is a batch of the rows still on their way, each at its own clock. The control is
on the host in float64; which steps are taken depends on the numbers, so none of this is a tableau.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Field = Callable[
    [Floats, Floats, Rows], Floats
]  # (y (b, *shape), clock (b,), which rows) -> dy/dr

SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0  # of the factor between two steps
LEAST_ERROR = 1e-4  # what an error counts for at least: a lucky zero says nothing of the next step


@dataclass(frozen=True)
class Pair:
    """An embedded pair whose last stage is the first of the next step ("first same as last").

    a, c: one entry per stage after the first; the last row of a is b. e = b minus the weights of the
    formula one order lower. d: what makes the cubic between two states as good as the pair, or zeros.
    order: of the state carried on, and the power of h in the error.
    """

    a: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]
    e: tuple[float, ...]
    d: tuple[float, ...]
    order: int

    @property
    def calls(self) -> int:
        """Calls of the field per step, taken or not."""
        return len(self.c)


# Dormand & Prince 1980, table 2 (RK5(4)7M); d from Hairer et al. 1993, II.6, as their DOPRI5 has it.
DOPRI5 = Pair(
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    c=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    e=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    d=(
        -12715105075 / 11282082432,
        0.0,
        87487479700 / 32700410799,
        -10690763975 / 1880347072,
        701980252875 / 199316789632,
        -1453857185 / 822651844,
        69997945 / 29380423,
    ),
    order=5,
)
# Bogacki & Shampine 1989, eq. 3 and 5; between its states the plain cubic is of the pair's order.
BOSH3 = Pair(
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    c=(1 / 2, 3 / 4, 1.0),
    e=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    d=(0.0, 0.0, 0.0, 0.0),
    order=3,
)


def step(
    pair: Pair, field: Field, y: Floats, k: Floats, r: Floats, s: Floats, rows: Rows
) -> tuple[Floats, list[Floats]]:
    """The states at s and the stages k_i, from the states y and rates k at the clocks r."""
    h, stages = s - r, [k]
    inner = y
    for weights, c in zip(pair.a, pair.c, strict=True):
        inner = y + total(weights, stages, h)
        stages.append(field(inner, s if c == 1.0 else r + c * h, rows))
    return inner, stages


def total(weights: Sequence[float], stages: Sequence[Floats], h: Floats) -> Floats:
    """h sum_i w_i k_i, row by row."""
    weighted = stages[0] * 0.0
    for w, k in zip(weights, stages, strict=True):
        if w != 0.0:
            weighted = weighted + k * w
    return weighted * column(h, weighted)


def between(
    pair: Pair, theta: Floats, y: Floats, y_s: Floats, stages: Sequence[Floats], h: Floats
) -> Floats:
    """The state at r + theta h, 0 <= theta <= 1: the cubic through both ends and rates, plus h sum d k.

    Hairer et al. 1993, II.6, in the nested form of their CONTD5; without d it is Hermite's cubic.
    """
    on, wide = column(theta, y), column(h, y)
    rise = y_s - y
    start = stages[0] * wide - rise
    end = rise - stages[-1] * wide - start
    top = end + total(pair.d, stages, h) * (1.0 - on)
    return y + on * (rise + (1.0 - on) * (start + on * top))


def column(values: Floats, like: Floats) -> Floats:
    """(b,) -> (b, 1, ...), to multiply rows of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def size(away: Floats) -> Floats:
    """sqrt(mean square) of every row: (b, *shape) -> (b,)."""
    flat = away.reshape(len(away), -1)
    root: Floats = np.sqrt(np.mean(flat * flat, axis=1))
    return root


@dataclass(frozen=True)
class Solution:
    """path: the states at marks[1:], (marks - 1, n, *shape); calls, accepted, rejected: int64 (n,)."""

    path: Floats
    calls: NDArray[np.int64]
    accepted: NDArray[np.int64]
    rejected: NDArray[np.int64]


def solve(
    field: Field,
    y: Floats,
    marks: Sequence[float],
    *,
    pair: Pair,
    rtol: float,
    atol: float,
    most_calls: int,
    time: Callable[[float], float] = float,
    first: int = 0,
) -> Solution:
    """The states at marks[1:] on the way from y at marks[0] to marks[-1], rising or falling.

    A step is taken if sqrt(mean((error / (atol + rtol |y|))^2)) <= 1 over its row. most_calls: of the
    field, per row. time and first: how a clock and row 0 are called in errors. Raises
    FloatingPointError for a row that does not reach the end.
    """
    run = _Run(field, pair, rtol, atol, most_calls, [float(mark) for mark in marks], time, first)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # such steps are rejected
        run.begin(np.array(y, np.float64))
        while (rows := np.flatnonzero(run.r != run.marks[-1])).size:
            run.advance(rows)
    run.path[-1] = run.y
    return Solution(run.path, run.calls, run.accepted, run.rejected)


@dataclass
class _Run:
    """Where every row is: state y, rate k, clock r, next step h, and what it has cost."""

    slope: Field
    pair: Pair
    rtol: float
    atol: float
    most_calls: int
    marks: list[float]
    time: Callable[[float], float]
    first: int
    y: Floats = field(init=False)
    k: Floats = field(init=False)
    r: Floats = field(init=False)
    h: Floats = field(init=False)
    before: Floats = field(init=False)  # the error of the last step taken
    again: NDArray[np.bool_] = field(init=False)  # whether the last step was rejected
    wild: NDArray[np.bool_] = field(init=False)  # because it was not finite
    path: Floats = field(init=False)
    calls: NDArray[np.int64] = field(init=False)
    accepted: NDArray[np.int64] = field(init=False)
    rejected: NDArray[np.int64] = field(init=False)

    @property
    def span(self) -> float:
        return self.marks[-1] - self.marks[0]

    def begin(self, y: Floats) -> None:
        """The first rates and the first h of every row (Hairer et al. 1993, II.4, p. 169)."""
        rows, sign = np.arange(len(y)), float(np.sign(self.span))
        self.y, self.r = y, np.full(len(y), self.marks[0])
        self.k = self.slope(y, self.r, rows)
        self.before = np.ones(len(y))
        self.again, self.wild = np.zeros((2, len(y)), bool)
        self.calls = np.full(len(y), 2)
        self.accepted, self.rejected = np.zeros((2, len(y)), np.int64)
        self.path = np.empty((len(self.marks) - 1, *y.shape))
        finite = np.isfinite(self.k).reshape(len(y), -1).all(1)
        if not finite.all():
            raise self._failed(rows[~finite], "finite values", "NaN or infinity")
        scale = self.atol + self.rtol * np.abs(y)
        far, fast = size(y / scale), size(self.k / scale)
        h = np.where((far < 1e-5) | (fast < 1e-5), 1e-6, 0.01 * far / fast)
        h = np.minimum(h, abs(self.span))
        probe = self.slope(y + self.k * column(sign * h, y), self.r + sign * h, rows)
        bend = np.fmax(fast, size((probe - self.k) / scale) / h)  # fmax: the probe may overflow
        other = np.where(
            bend <= 1e-15, np.maximum(1e-6, 1e-3 * h), (0.01 / bend) ** (1 / self.pair.order)
        )
        self.h = sign * np.minimum(np.minimum(100.0 * h, other), abs(self.span))

    def advance(self, rows: Rows) -> None:
        """One step of each of these rows, taken or rejected, and the next h of each."""
        r, h, end = self.r[rows], self.h[rows], self.marks[-1]
        last = np.abs(end - r) <= 1.01 * np.abs(
            h
        )  # rather a little longer than a sliver at the end
        self._check(rows[~last])
        s = np.where(last, end, r + h)
        y = self.y[rows]
        y_s, stages = step(self.pair, self.slope, y, self.k[rows], r, s, rows)
        scale = self.atol + self.rtol * np.maximum(np.abs(y), np.abs(y_s))
        error = size(total(self.pair.e, stages, s - r) / scale)
        finite = np.isfinite(y_s + stages[-1]).reshape(len(rows), -1).all(1)
        error = np.where(finite, error, np.inf)
        taken = error <= 1.0
        self._mark(rows, taken, r, s, y, y_s, stages)
        self.y[rows[taken]], self.k[rows[taken]] = y_s[taken], stages[-1][taken]
        self.r[rows[taken]] = s[taken]
        self.h[rows] = (s - r) * self._factor(rows, error, taken)
        self.before[rows[taken]] = np.maximum(error[taken], LEAST_ERROR)
        self.again[rows], self.wild[rows] = ~taken, ~finite
        self.calls[rows] += self.pair.calls
        self.accepted[rows] += taken
        self.rejected[rows] += ~taken

    def _factor(self, rows: Rows, error: Floats, taken: NDArray[np.bool_]) -> Floats:
        """0.9 error^(-0.85/p) before^(0.2/p), within 0.2 to 10: proportional and integral control.

        Hairer & Wanner 1996, IV.2, eq. 2.43c, with the powers of DOPRI5 (beta = 0.04 at p = 5). A
        rejected step shrinks by the plain 0.9 error^(-1/p), and the step after it does not grow.
        """
        p, floor = self.pair.order, np.maximum(error, LEAST_ERROR)
        smooth = SAFETY * floor ** (-0.85 / p) * self.before[rows] ** (0.2 / p)
        factor = np.where(taken, smooth, SAFETY * floor ** (-1.0 / p))
        most = np.where(self.again[rows] | ~taken, 1.0, LARGEST)
        return np.clip(factor, SMALLEST, most)

    def _mark(
        self,
        rows: Rows,
        taken: NDArray[np.bool_],
        r: Floats,
        s: Floats,
        y: Floats,
        y_s: Floats,
        stages: list[Floats],
    ) -> None:
        """The states at the marks that these steps passed."""
        for index, mark in enumerate(self.marks[1:-1]):
            passed = taken & ((mark - r) * self.span > 0.0) & ((mark - s) * self.span <= 0.0)
            if passed.any():
                h = (s - r)[passed]
                self.path[index, rows[passed]] = between(
                    self.pair,
                    (mark - r[passed]) / h,
                    y[passed],
                    y_s[passed],
                    [k[passed] for k in stages],
                    h,
                )

    def _check(self, rows: Rows) -> None:
        """Raise for rows that cannot afford another step, or whose step is lost in rounding."""
        spent = rows[self.calls[rows] + self.pair.calls > self.most_calls]
        if spent.size:
            raise self._failed(
                spent, f"the end within {self.most_calls} network calls", "no further"
            )
        least = 10.0 * np.spacing(np.maximum(np.abs(self.r[rows]), abs(self.span)))
        stuck = rows[np.abs(self.h[rows]) < least]
        if stuck.size:
            got = "NaN or infinity" if self.wild[stuck[0]] else "steps as small as rounding"
            raise self._failed(stuck, "finite values and a smooth field", got)

    def _failed(self, rows: Rows, expected: str, got: str) -> FloatingPointError:
        row = int(rows[0])
        many = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return FloatingPointError(
            f"step {int(self.accepted[row]) + 1}, t = {self.time(float(self.r[row])):.4g}: expected "
            f"{expected}, got {got} in sample {self.first + row}{many}; "
            "try a larger tolerance or less guidance"
        )


PAIRS: dict[str, Pair] = {
    "dopri5": DOPRI5,
    "bosh3": BOSH3,
}
