"""dy/dr = field(y, r) followed over a grid: each algorithm once, as a plain generator of states.

A solver touches the state only with + and * by Python floats, so the same function runs on numpy,
torch and MLX arrays, and on the symbols that `trace.trace` turns into a table of numbers. It yields
the state after every step; progress bars, previews and early stops belong to the caller. Here are the
one-step rules; those that remember are in `multistep`, those that follow the two ends in `exponential`,
those that draw noise in `stochastic`, and those that choose their own steps, no tableau, in `adaptive`.
t is now, s is next, h = s - t, k is the field somewhere. To add one, write the function and its line
in `SOLVERS`: it is then tested for its declared order, exported and offered on the command line.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

from .exponential import (
    deis2,
    deis3,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    edm_heun,
    unipc2,
    unipc3,
)
from .multistep import ab2, ab3, ab4
from .stochastic import (
    ancestral,
    edm_churn,
    euler_maruyama,
    langevin,
    sde_dpmpp_2m,
    stochastic_heun,
)


class Array(Protocol):
    """All that a solver asks of a state: sums of states and products with a Python float."""

    def __add__(self: "A", other: "A", /) -> "A": ...
    def __mul__(self: "A", other: float, /) -> "A": ...


A = TypeVar("A", bound=Array)
Field = Callable[[A, float], A]


def euler(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h k(t)."""
    for t, s in pairwise(grid):
        y = y + field(y, t) * (s - t)
        yield y


def midpoint(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h k(t + h/2), from y + h/2 k(t) (Hairer et al. 1993, II.1, eq. 1.4)."""
    for t, s in pairwise(grid):
        h = s - t
        half = y + field(y, t) * (0.5 * h)
        y = y + field(half, t + 0.5 * h) * h
        yield y


def heun(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h (k1 + k2) / 2, k1 at (y, t), k2 at (y + h k1, s) (Heun's trapezoidal rule)."""
    for t, s in pairwise(grid):
        h = s - t
        k1 = field(y, t)
        k2 = field(y + k1 * h, s)
        y = y + (k1 + k2) * (0.5 * h)
        yield y


def ralston(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h (k1 + 3 k2) / 4, k2 at (y + 2/3 h k1, t + 2/3 h).

    Of the two-call rules of order 2 the one with the smallest error bound (Ralston 1962).
    """
    for t, s in pairwise(grid):
        h = s - t
        k1 = field(y, t)
        k2 = field(y + k1 * (h * 2.0 / 3.0), t + h * 2.0 / 3.0)
        y = y + (k1 + k2 * 3.0) * (0.25 * h)
        yield y


def heun3(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h (k1 + 3 k3) / 4, k2 at (y + h/3 k1, t + h/3), k3 at (y + 2/3 h k2, t + 2/3 h).

    Heun 1900 (Hairer et al. 1993, II.1, table 1.1).
    """
    for t, s in pairwise(grid):
        h = s - t
        k1 = field(y, t)
        k2 = field(y + k1 * (h / 3.0), t + h / 3.0)
        k3 = field(y + k2 * (h * 2.0 / 3.0), t + h * 2.0 / 3.0)
        y = y + (k1 + k3 * 3.0) * (0.25 * h)
        yield y


def rk4(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h (k1 + 2 k2 + 2 k3 + k4) / 6 (Kutta 1901; Hairer et al. 1993, II.1, table 1.2)."""
    for t, s in pairwise(grid):
        h = s - t
        middle = t + 0.5 * h
        k1 = field(y, t)
        k2 = field(y + k1 * (0.5 * h), middle)
        k3 = field(y + k2 * (0.5 * h), middle)
        k4 = field(y + k3 * h, s)
        y = y + k1 * (h / 6.0) + k2 * (h / 3.0) + k3 * (h / 3.0) + k4 * (h / 6.0)
        yield y


@dataclass(frozen=True)
class Solver:
    """An algorithm and what it promises.

    steps: the generator. order: of convergence in the largest step (weak order for a noisy one).
    calls: network evaluations per step, where no end of the path saves one; extra: those that a start
    makes beyond that, in the whole run. past: how many steps it looks back on; a run needs more of them.
    follows: what the generator is given. "field": the right hand side of an ODE, in any chart; "ends":
    the (data, noise) that the network implies, in the path's own variables; "noise": the ends and
    a source of noise, to follow an SDE; "diffusion": those and the SDE's g^2 (see `stochastic`).
    """

    steps: Callable[..., Iterator[Array]]
    order: int
    calls: int
    follows: str = "field"
    extra: int = 0
    past: int = 0

    @property
    def noisy(self) -> bool:
        """Whether it draws noise."""
        return self.follows in ("noise", "diffusion")


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler, order=1, calls=1),
    "midpoint": Solver(midpoint, order=2, calls=2),
    "heun": Solver(heun, order=2, calls=2),
    "ralston": Solver(ralston, order=2, calls=2),
    "heun3": Solver(heun3, order=3, calls=3),
    "rk4": Solver(rk4, order=4, calls=4),
    "ab2": Solver(ab2, order=2, calls=1, past=1),
    "ab3": Solver(ab3, order=3, calls=1, extra=1, past=2),
    "ab4": Solver(ab4, order=4, calls=1, extra=4, past=3),
    "dpmpp_2s": Solver(dpmpp_2s, order=2, calls=2, follows="ends"),
    "dpmpp_2m": Solver(dpmpp_2m, order=2, calls=1, follows="ends", past=1),
    "dpmpp_3m": Solver(dpmpp_3m, order=2, calls=1, follows="ends", past=2),
    "unipc2": Solver(unipc2, order=3, calls=1, follows="ends", past=1),
    "unipc3": Solver(unipc3, order=3, calls=1, follows="ends", past=2),
    "deis2": Solver(deis2, order=2, calls=1, follows="ends", past=1),
    "deis3": Solver(deis3, order=2, calls=1, follows="ends", past=2),
    "edm_heun": Solver(edm_heun, order=2, calls=2, follows="ends"),
    "euler_maruyama": Solver(euler_maruyama, order=1, calls=1, follows="diffusion"),
    "stochastic_heun": Solver(stochastic_heun, order=2, calls=2, follows="diffusion"),
    "ancestral": Solver(ancestral, order=1, calls=1, follows="noise"),
    "sde_dpmpp_2m": Solver(sde_dpmpp_2m, order=2, calls=1, follows="noise", past=1),
    "edm_churn": Solver(edm_churn, order=2, calls=2, follows="noise"),
    "langevin": Solver(langevin, order=1, calls=2, follows="noise"),
}
