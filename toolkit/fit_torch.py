"""The second stage of a fit: min over times, keep, mix of mean |x_N - x_fine|, by Adam through torch.

A distance and not its square, as what a fit is judged by is a median: in a mean of squares the few samples
that end in another mode outweigh all others. The numbers are float64 on the host, the network's own weights
are left alone (Kingma & Ba 2015; Shaul et al. 2024, alg. 1). Outputs at near times are nearly the same, so
that Adam's rate for each number would be far too large for some sums of them: it moves other numbers, z,
with

    (keep, mix)_k = their start + R_k z_k,     R_k such that z_k moves x_{k+1} by |z_k| (root mean square)
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from runtimes.conditions import null_condition
from runtimes.tableau import run
from toolkit.coefficients import LOOK, Table, to_tableau, window
from toolkit.landing import Problem

BATCH = 32  # samples a step
RATE = 0.2  # of the error that a fit starts from
EVERY = 10  # steps between two looks at the held-out error
DAMPED = 1e-4  # of the largest direction: the smallest that z moves freely
TINY = 1e-12  # a mean square this small is float32's rounding

Call = Callable[[Tensor, Tensor, bool], Tensor]  # (x, time, on) -> prediction


def refine(
    problem: Problem, module: torch.nn.Module, table: Table, iterations: int, *, seed: int = 0
) -> Iterator[tuple[int, Table, float]]:
    """Yield (iterations done, table, its error on the part "stop") now and then.

    Raises FloatingPointError for gradients that are not finite.
    """
    numbers = Numbers(problem, module, table)
    rate = RATE * problem.table_error(table)
    optimiser = torch.optim.Adam(numbers.parameters(), lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=iterations, pct_start=0.1, cycle_momentum=False
    )
    rng, rows = np.random.default_rng(seed), problem.parts["fit"]
    for done in range(1, iterations + 1):
        some = rng.choice(
            np.arange(rows.start, rows.stop), min(BATCH, rows.stop - rows.start), False
        )
        optimiser.zero_grad()
        numbers.loss(np.sort(some)).backward()
        slopes = [p.grad for p in numbers.parameters() if p.grad is not None]
        if not all(torch.isfinite(slope).all() for slope in slopes):
            raise FloatingPointError(
                f"fit: expected finite gradients, got NaN or infinity in step {done}; "
                "the network cannot be fitted through: fit its .onnx instead"
            )
        optimiser.step()
        schedule.step()
        if done % EVERY and done < iterations:
            continue
        now = numbers.table()
        yield done, now, problem.table_error(now)


class Numbers:
    """A table's numbers as tensors with gradients, and the run they make; the first time stays."""

    def __init__(self, problem: Problem, module: torch.nn.Module, table: Table) -> None:
        self.problem, self.module, self.start = problem, module.eval(), table
        self.moves = [torch.from_numpy(move) for move in _moves(problem, table)]
        self.times = torch.tensor(table.times[1:], requires_grad=True)
        self.z = [
            torch.zeros(len(move), dtype=torch.float64, requires_grad=True) for move in self.moves
        ]
        self.used = used(table)
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))

    def parameters(self) -> list[Tensor]:
        """What Adam moves."""
        return [self.times, *self.z]

    def row(self, k: int) -> Tensor:
        """keep_k, then mix_k inside the window."""
        start = np.concatenate([self.start.keep[k : k + 1], self.start.mix[k, self.used[k]]])
        return torch.from_numpy(start) + self.moves[k] @ self.z[k]

    def time(self, k: int) -> Tensor:
        """t_k, kept on the path."""
        if k == 0:
            return torch.tensor(self.start.times[0])
        ends = self.problem.times
        return self.times[k - 1].clamp(min(ends), max(ends))

    def table(self) -> Table:
        """The numbers now."""
        calls = self.start.calls
        with torch.no_grad():
            rows = [self.row(k).numpy() for k in range(calls)]
            times = np.array([float(self.time(k)) for k in range(calls)])
        mix = np.zeros_like(self.start.mix)
        for k, used in enumerate(self.used):
            mix[k, used] = rows[k][1:]
        return replace(self.start, times=times, keep=np.array([row[0] for row in rows]), mix=mix)

    def loss(self, rows: np.ndarray) -> Tensor:
        """mean over these samples of |x_N - x_fine|, where |.| is a root mean square."""
        x, fine = (self._tensor(self.problem.states[place, rows]) for place in (0, -1))
        network = self._network(rows)
        outs: list[Tensor] = []
        for k in range(self.start.calls):
            outs.append(network(x, self.time(k), bool(self.start.guided[k])))
            keep, *mix = self.row(k)
            x = x * keep + sum(
                outs[j] * weight for j, weight in zip(self.used[k], mix, strict=True)
            )
        squares = ((x - fine) ** 2).flatten(1).mean(1)
        return torch.sqrt(squares + TINY).mean()

    def _network(self, rows: np.ndarray) -> Call:
        """(x, time, on) -> prediction in float64, guided by the samples' own weights where on."""
        problem, module = self.problem, self.module
        if problem.condition is None:
            return lambda x, time, on: module(*self._shown(x, time)).double()
        condition = torch.from_numpy(problem.condition[rows]).to(self.device)
        null = torch.from_numpy(null_condition(problem.model.spec, len(rows))).to(self.device)
        both = torch.cat([condition, null])
        weight = self._tensor(problem.weight[rows])

        def call(x: Tensor, time: Tensor, on: bool) -> Tensor:
            if not (on and problem.free):
                return module(*self._shown(x, time), condition).double()
            out = module(*self._shown(torch.cat([x, x]), time), both).double()
            strong, weak = out.chunk(2)
            return strong * weight + weak * (1.0 - weight)

        return call

    def _shown(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """x as the network is shown it, and the time of each row; the scale's own slope is left out."""
        scale = self.problem.shown(float(time.detach()))
        return (x * scale).float(), time.float().to(self.device).expand(len(x))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).double().to(self.device)


def used(table: Table) -> list[np.ndarray]:
    """The outputs that each row weighs: the newest, and what its start weighs beside them."""
    return [np.flatnonzero(row) for row in window(table.calls, LOOK) | (table.mix != 0.0)]


def _moves(problem: Problem, table: Table) -> list[np.ndarray]:
    """R_k: the eigenvectors of the mean square of row k's columns over the roots of its eigenvalues."""
    columns: list[np.ndarray] = []
    network = problem.call("fit")

    def watched(x: np.ndarray, t: float, on: bool) -> np.ndarray:
        columns.append(x.ravel().astype(np.float64) / problem.shown(t))
        outs.append(network(x, t, on))
        return outs[-1]

    outs: list[np.ndarray] = []
    for _ in run(
        to_tableau(table, problem.shown), watched, problem.states[0, problem.parts["fit"]]
    ):
        pass
    moves = []
    for k, inside in enumerate(used(table)):
        both = np.stack([columns[k], *(outs[j].ravel() for j in inside)], axis=-1)
        values, vectors = np.linalg.eigh(both.T @ both / len(both))
        moves.append(vectors / np.sqrt(values + DAMPED * values[-1]))
    return moves
