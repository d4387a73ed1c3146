"""What fitted calls are worth: end error, energy distance, sliced Wasserstein, recall, beside the solvers.

    toolkit fit runs/digits --calls 4,6,8 && toolkit export runs/digits --out digits.onnx
    python examples/few_calls.py digits.onnx --data digits             # the table, few_calls.json and .png

The model's fitted tableaus against every contender of the fit at 4 to 50 calls, from the same noise. Each
round has noise of its own and runs all of them once, in random order; a figure is the median over rounds
with its range. The end error is the median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with
100 steps; the three distances are to held-out data. Beside them stand a floor, real rows as if they were
samples, and a baseline, a Gaussian per label. The time is this process's on all cores, for one sample, and
its ratio to the slowest Euler of the same round, with quartiles. At the end it says whether 6 fitted
calls are no worse than Euler with 50, and 8 no worse than the best solver with 20; as good means worse by
less than the fine samples differ among rounds.
"""

import argparse
import json
import math
import random
import statistics
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes.tableaus import FITTED
from runtimes.timing import CLOCKS, ratios
from toolkit import data as data_sets
from toolkit import plots
from toolkit.cli.progress import Bar
from toolkit.costs import FINE, MOST_REAL, steps_of
from toolkit.drawings import COLOURS
from toolkit.fit import CONTENDERS
from toolkit.metrics import energy_distance, per_class_gaussian, recall, sliced_wasserstein

CALLS = (4, 6, 8, 10, 12, 16, 20, 30, 50)
FIGURES = ("end error", "ED2", "SWD", "recall")  # and milliseconds after them
Run = tuple[str, int]  # solver, calls


def main() -> None:
    """Parse, measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("-n", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="few_calls")
    options = parser.parse_args()
    model, known = (
        runtimes.load(options.model, threads=options.threads),
        data_sets.load(options.data),
    )
    if known.held_out is None:
        parser.error(f"--data: expected a set with rows held out, got {options.data}")
    rounds = measure(model, known, options)
    print(
        f"threads {options.threads}, rounds {options.rounds} of {options.n} samples\n{table(rounds)}"
    )
    verdicts = list(judge(rounds))
    print("\n".join(verdicts))
    flat = [
        {
            f"{s} {c}": [None if math.isnan(v) else v for v in values]
            for (s, c), values in one.items()
        }
        for one in rounds
    ]
    Path(f"{options.out}.json").write_text(
        json.dumps({"rounds": flat, "said": verdicts}, indent=1)
    )
    draw(rounds, Path(f"{options.out}.png"), options.model)


def measure(model: Any, known: Any, options: argparse.Namespace) -> list[dict[Run, list[float]]]:
    """The figures of every run, a dict for each round; of what is no run under 0 calls, or ("fine", 400)."""
    runs: dict[Run, dict[str, Any]] = {
        (FITTED, one.steps): {"calls": one.steps} for one in model.tableaus if one.solver == FITTED
    }
    for name, calls in product(CONTENDERS, options.calls):
        for steps in steps_of(name, [calls]):
            runs[name, calls] = {"solver": name, "steps": steps}
    bar, rounds, real = Bar("measuring"), [], known.held_out.x[:MOST_REAL]
    for index in range(options.rounds):
        asked: dict[str, Any] = {"seed": (index + 1) * 1_000_000, "guidance": options.guidance}
        kind = model.spec.condition.kind
        if kind != "none":
            labels = known.held_out.y
            asked[kind] = np.resize(labels, (options.n, *labels.shape[1:]))
        fine, took = drawn(model, options.n, {**asked, **FINE})
        figures = {("fine", 400): [*compare(fine, fine, real), took]}
        for name, x in beside(known, options.n, index).items():
            figures[name, 0] = [math.nan, *compare(x, x, real)[1:], math.nan]
        order = random.Random(index).sample(list(runs), len(runs))
        for done, run in enumerate(order, 1):
            x, took = drawn(model, options.n, {**asked, **runs[run]})
            figures[run] = [*compare(x, fine, real), took]
            bar.show(index * len(runs) + done, options.rounds * len(runs), run[0])
        rounds.append(figures)
    return rounds


def drawn(model: Any, n: int, request: dict[str, Any]) -> tuple[np.ndarray, float]:
    """n samples, and the milliseconds that each took."""
    started = CLOCKS["cpu"]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # off the range is measured here
        x = runtimes.sample(model, n, **request)
    return x, (CLOCKS["cpu"]() - started) / n * 1e3


def beside(known: Any, n: int, index: int) -> dict[str, np.ndarray]:
    """n training rows, and as many of a Gaussian per label, or of one where there are none."""
    rng = np.random.default_rng([index, n])
    labels = known.y if known.classes else np.zeros(len(known.x), int)
    some = rng.permutation(len(known.x))[:n]
    return {"floor": known.x[some], "Gaussian": per_class_gaussian(known.x, labels, n, rng)[0]}


def compare(x: np.ndarray, fine: np.ndarray, real: np.ndarray) -> list[float]:
    """The `FIGURES` of some samples."""
    apart = (x - fine).reshape(len(x), -1).astype(np.float64)
    return [
        float(np.median(np.sqrt((apart**2).mean(1)))),
        energy_distance(x, real),
        sliced_wasserstein(x, real, rng=np.random.default_rng(0)),
        recall(real, x),
    ]


def column(rounds: list[dict[Run, list[float]]], run: Run, figure: int) -> list[float]:
    """One figure of one run in every round."""
    return [one[run][figure] for one in rounds]


def table(rounds: list[dict[Run, list[float]]]) -> str:
    """A line for each run: the median over rounds and its range, then its time."""
    slowest = max((run for run in rounds[0] if run[0] == "euler"), key=lambda run: run[1])
    names = (*FIGURES, "ms", f"ms / {slowest[0]} {slowest[1]}")
    lines = [f"{'':14}" + "".join(f"{name:>28}" for name in names)]
    for run in sorted(rounds[0], key=lambda run: (run[1], run[0])):
        cells = []
        for index in range(len(FIGURES) + 1):
            values = column(rounds, run, index)
            middle = statistics.median(values)
            cells.append(f"{middle:.4f} [{min(values):.4f}, {max(values):.4f}]")
        low, middle, high = ratios(*(column(rounds, one, len(FIGURES)) for one in (run, slowest)))
        cells.append(f"{middle:.3f} [{low:.3f}, {high:.3f}]")
        cells = ["-" if "nan" in cell else cell for cell in cells]
        lines.append(f"{run[0]:9} {run[1]:4}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def judge(rounds: list[dict[Run, list[float]]]) -> list[str]:
    """Whether a few fitted calls are no worse than many: the median of the differences within rounds."""
    runs = rounds[0]
    best = min(
        (run for run in runs if run[1] == 20),
        key=lambda run: statistics.median(column(rounds, run, 0)),
        default=None,
    )
    said = []
    for calls, rival in ((6, ("euler", 50)), (8, best)):
        if (FITTED, calls) not in runs or rival not in runs:
            continue
        for index, name in enumerate(FIGURES):
            pairs = zip(
                column(rounds, (FITTED, calls), index), column(rounds, rival, index), strict=True
            )
            sign = -1.0 if name == "recall" else 1.0
            worse = statistics.median(sign * (mine - theirs) for mine, theirs in pairs)
            fine = column(rounds, ("fine", 400), index)
            room = max(fine) - min(fine) if index else 0.0
            word = "no worse" if worse <= 0 else "as good" if worse <= room else "WORSE"
            said.append(
                f"fitted {calls} against {rival[0]} {rival[1]}, {name}: {word} "
                f"(difference {worse:+.4f}, the fine samples' range {room:.4f})"
            )
    return said


def draw(rounds: list[dict[Run, list[float]]], path: Path, title: str) -> None:
    """End error against calls, a line for each solver."""
    page = plots.figure(7.0, 4.2)
    (axes,) = page.axes
    for name, colour in zip((FITTED, *CONTENDERS), (plots.INK, *COLOURS), strict=True):
        runs = sorted(run for run in rounds[0] if run[0] == name)
        errors = [statistics.median(column(rounds, run, 0)) for run in runs]
        calls = [calls for _, calls in runs]
        axes.plot(calls, errors, color=colour, marker="o", markersize=3.2, label=name)
    axes.set(xscale="log", yscale="log", xlabel="network calls", ylabel="end error")
    ticks = sorted({calls for name, calls in rounds[0] if calls and name != "fine"})
    axes.set_xticks(ticks, [str(calls) for calls in ticks])
    axes.minorticks_off()
    axes.set_title(Path(title).name)
    axes.legend(frameon=False, fontsize=9)
    plots.save(path, page)


if __name__ == "__main__":
    main()
