"""What fitted calls are worth: end error, energy distance, sliced Wasserstein, recall, beside the solvers.

    toolkit fit runs/digits --calls 4,6,8 && toolkit export runs/digits --out digits.onnx
    python examples/few_calls.py digits.onnx --data digits             # the table, few_calls.json and .png

The model's fitted tableaus against every contender of the fit at 4 to 50 calls, from the same noise. Each
round has noise of its own; a figure is the median over rounds with its range. The end error is the
median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with 100 steps; the three distances are to
held-out data. At the end it says whether 6 fitted calls are no worse than Euler with 50, and 8 no
worse than the best solver with 20; as good means worse by less than the fine samples differ among rounds.
"""

import argparse
import json
import statistics
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes.tableaus import FITTED
from toolkit import data as data_sets
from toolkit import plots
from toolkit.cli.progress import Bar
from toolkit.costs import FINE, steps_of
from toolkit.drawings import COLOURS
from toolkit.fit import CONTENDERS
from toolkit.metrics import energy_distance, recall, sliced_wasserstein

CALLS = (4, 6, 8, 10, 12, 16, 20, 30, 50)
FIGURES = ("end error", "ED2", "SWD", "recall")
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
    parser.add_argument("--out", default="few_calls")
    options = parser.parse_args()
    model, held_out = runtimes.load(options.model), data_sets.load(options.data).held_out
    if held_out is None:
        parser.error(f"--data: expected a set with rows held out, got {options.data}")
    rounds = measure(model, held_out, options)
    print(table(rounds))
    verdicts = list(judge(rounds))
    print("\n".join(verdicts))
    flat = [{f"{s} {c}": values for (s, c), values in one.items()} for one in rounds]
    Path(f"{options.out}.json").write_text(
        json.dumps({"rounds": flat, "said": verdicts}, indent=1)
    )
    draw(rounds, Path(f"{options.out}.png"), options.model)


def measure(
    model: Any, held_out: Any, options: argparse.Namespace
) -> list[dict[Run, list[float]]]:
    """The figures of every run, a dict for each round; the fine samples' own under ("fine", 400)."""
    runs: dict[Run, dict[str, Any]] = {
        (FITTED, one.steps): {"calls": one.steps} for one in model.tableaus if one.solver == FITTED
    }
    for name, calls in product(CONTENDERS, options.calls):
        for steps in steps_of(name, [calls]):
            runs[name, calls] = {"solver": name, "steps": steps}
    bar, rounds = Bar("measuring"), []
    for index in range(options.rounds):
        asked: dict[str, Any] = {"seed": (index + 1) * 1_000_000, "guidance": options.guidance}
        kind = model.spec.condition.kind
        if kind != "none":
            asked[kind] = np.resize(held_out.y, (options.n, *held_out.y.shape[1:]))
        fine = runtimes.sample(model, options.n, **asked, **FINE)
        figures = {("fine", 400): compare(fine, fine, held_out.x)}
        for done, (run, words) in enumerate(runs.items(), 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # off the range is measured here
                x = runtimes.sample(model, options.n, **asked, **words)
            figures[run] = compare(x, fine, held_out.x)
            bar.show(index * len(runs) + done, options.rounds * len(runs), run[0])
        rounds.append(figures)
    return rounds


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
    """A line for each run: the median over rounds and its range."""
    lines = [f"{'':14}" + "".join(f"{name:>28}" for name in FIGURES)]
    for run in sorted(rounds[0], key=lambda run: (run[1], run[0])):
        cells = []
        for index in range(len(FIGURES)):
            values = column(rounds, run, index)
            middle = statistics.median(values)
            cells.append(f"{middle:.4f} [{min(values):.4f}, {max(values):.4f}]")
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
    ticks = sorted({calls for name, calls in rounds[0] if name != "fine"})
    axes.set_xticks(ticks, [str(calls) for calls in ticks])
    axes.minorticks_off()
    axes.set_title(Path(title).name)
    axes.legend(frameon=False, fontsize=9)
    plots.save(path, page)


if __name__ == "__main__":
    main()
