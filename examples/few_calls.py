"""What fitted calls are worth: end error, energy distance, sliced Wasserstein, recall, beside the solvers.

    toolkit fit runs/digits --calls 4,6,8 && toolkit export runs/digits --out digits.onnx
    python examples/few_calls.py digits.onnx --data digits             # the table, few_calls.json and .png

The model's fitted tableaus against every contender of the fit at 4 to 50 calls, from the same noise. Each
round has noise of its own and runs all of them once, in random order; a figure is the median over rounds
with its range. The end error is the median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with
100 steps; the three distances are to held-out data, of samples treated as `toolkit evaluate` treats them
(clipped and rounded where the set has a grid of values, in its units). Beside them stand its floor, real
rows as if they were samples, and its baseline, a Gaussian per label. The time is the processor's for one
sample, and its ratio to that of Euler with the most calls in the same round, with quartiles. At the end it
says whether 6 fitted calls are no worse than Euler with 50, and 8 no worse than the best solver with 20; as
good means worse by less than the fine samples differ among rounds.
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
from runtimes.files import refuse_existing
from runtimes.tableaus import FITTED
from runtimes.timing import CLOCKS, ratios
from toolkit import data as data_sets
from toolkit import plots
from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line
from toolkit.costs import FINE, MOST_REAL, end_error, steps_of
from toolkit.drawings import COLOURS
from toolkit.fit import CONTENDERS
from toolkit.metrics import energy_distance, per_class_gaussian, recall, sliced_wasserstein
from toolkit.metrics.report import on_grid, some, stream  # the same figures as evaluate's

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
    parser.add_argument("-n", type=int, default=600, help="samples of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="few_calls")
    options = parser.parse_args()
    try:
        model, known = opened(options)
    except (ValueError, OSError) as error:
        parser.error(one_line(str(error)))
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


def opened(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model and its data. Raises ValueError or OSError where they, or --out, will not do."""
    refuse_existing(f"{options.out}.json", True)
    model = runtimes.load(options.model, threads=options.threads)
    known = data_sets.load(options.data)
    wants = model.spec.condition
    has = None if known.y is None else (known.condition, known.classes, known.y.shape[1:])
    if model.spec.shape != known.shape or (
        wants.kind != "none" and (wants.kind, wants.classes, wants.shape) != has
    ):
        raise ValueError(
            f"--data: expected rows {model.spec.shape} with a condition ({wants.kind}, "
            f"{wants.classes} labels), got {known.shape} ({known.condition}, {known.classes} labels); "
            "give the set that the model was trained on"
        )
    if known.held_out is None:
        raise ValueError(
            f"--data: expected rows held out, got none in {options.data}; give 1000 rows or more"
        )
    return model, known


def measure(model: Any, known: Any, options: argparse.Namespace) -> list[dict[Run, list[float]]]:
    """The figures of every run, a dict for each round; of what is no run under 0 calls, or ("fine", 400)."""
    runs: dict[Run, dict[str, Any]] = {
        (FITTED, one.steps): {"calls": one.steps} for one in model.tableaus if one.solver == FITTED
    }
    for name, calls in product(CONTENDERS, options.calls):
        for steps in steps_of(name, [calls]):
            runs[name, calls] = {"solver": name, "steps": steps}
    bar, rounds = Bar("measuring"), []
    for index in range(options.rounds):
        seed = (index + 1) * 1_000_000
        asked: dict[str, Any] = {"seed": seed, "guidance": options.guidance}
        kind = model.spec.condition.kind
        if kind != "none":
            labels = known.held_out.y
            asked[kind] = np.resize(labels, (options.n, *labels.shape[1:]))
        fine, took = drawn(model, options.n, {**asked, **FINE})
        figures = {("fine", 400): [0.0, *distances(fine, known, seed), took]}
        for name, x in beside(known, options.n, seed).items():
            figures[name, 0] = [math.nan, *distances(x, known, seed), math.nan]
        order = random.Random(index).sample(list(runs), len(runs))
        for done, run in enumerate(order, 1):
            x, took = drawn(model, options.n, {**asked, **runs[run]})
            # the error of samples as they come, before they are clipped
            figures[run] = [end_error(x, fine), *distances(x, known, seed), took]
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


def beside(known: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    """n training rows, and as many of a Gaussian per label, or of one where there are none: evaluate's."""
    labels = known.y if known.classes else np.zeros(len(known.x), int)
    floor = known.x[some(len(known.x), n, seed, "floor")]
    gaussian, _ = per_class_gaussian(known.x, labels, n, stream(seed, "baseline"))
    return {"floor": floor, "Gaussian": gaussian}


def distances(x: np.ndarray, known: Any, seed: int) -> list[float]:
    """ED2, SWD and recall of samples, a floor or a baseline against held-out rows."""
    x, real = evaluated(x, known), evaluated(known.held_out.x[:MOST_REAL], known)
    return [
        energy_distance(x, real),
        sliced_wasserstein(x, real, rng=stream(seed, "directions")),
        recall(real, x),
    ]


def evaluated(x: np.ndarray, known: Any) -> np.ndarray:
    """Rows as `toolkit evaluate` sees them: in the set's range of values; digits as X / 16 in [0, 1]."""
    x = on_grid(x, known.step, known.value_range)
    return (x + 1.0) / 2 if known.name == "digits" else x


def column(rounds: list[dict[Run, list[float]]], run: Run, figure: int) -> list[float]:
    """One figure of one run in every round."""
    return [one[run][figure] for one in rounds]


def table(rounds: list[dict[Run, list[float]]]) -> str:
    """A line for each run: the median over rounds and its range, then its time."""
    longest = max((run for run in rounds[0] if run[0] == "euler"), key=lambda run: run[1])
    names = (*FIGURES, "ms", f"ms / {longest[0]} {longest[1]}")
    lines = [f"{'':14}" + "".join(f"{name:>28}" for name in names)]
    for run in sorted(rounds[0], key=lambda run: (run[1], run[0])):
        cells = []
        for index in range(len(FIGURES) + 1):
            values = column(rounds, run, index)
            middle = statistics.median(values)
            cells.append(f"{middle:.4f} [{min(values):.4f}, {max(values):.4f}]")
        low, middle, high = ratios(*(column(rounds, one, len(FIGURES)) for one in (run, longest)))
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
