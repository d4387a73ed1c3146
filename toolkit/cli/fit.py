"""`toolkit fit`: a trained network in, tableaus out that land in a few calls where others need many."""

import time
from typing import Any

import click

from runtimes.tableaus import Ready
from toolkit.cli.numbers import REAL, WHOLE
from toolkit.cli.progress import Bar


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--calls", default="4,6,8", show_default=True, help="How many: each 2 to 32.")
@click.option(
    "-g",
    "--guidance",
    help="The weights to be good at: 2, or from,to like 1,3.  [the model's own]",
)
@click.option("--data", help="The set whose contexts are drawn from.  [what it was trained on]")
@click.option("--weights", default="ema", show_default=True, help="ema or network.")
@click.option("--iterations", default=150, show_default=True, help="Steps of Adam, 0 to 100000.")
@click.option("--seed", default=0, show_default=True, help="Of noise, labels and order.")
@click.option("-o", "--out", help="The .onnx to write, for an .onnx.")
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
def fit(
    run: str,
    calls: str,
    guidance: str | None,
    data: str | None,
    weights: str,
    iterations: int,
    seed: int,
    out: str | None,
    force: bool,
) -> None:
    """Choose the numbers of a few network calls so that they land where a fine reference does.

    RUN is a run folder, which gets a fitted.json that toolkit export puts into its files, or an .onnx, of
    which a copy with the tableaus in is written to --out. The network is not touched. Then
    toolkit sample MODEL.onnx --calls 4 takes them. Ctrl-C keeps the best so far.

    \b
    toolkit fit runs/digits --calls 4,6,8
    toolkit fit runs/digits --calls 6 --guidance 1,3
    toolkit fit digits.onnx --calls 4 --out digits-fitted.onnx
    """
    from runtimes.conditions import whole
    from toolkit import fits
    from toolkit.landing import pose
    from toolkit.recipe import LARGEST_SEED
    from toolkit.signals import asked_to_stop

    wanted = [whole("calls", number, 2, 32) for number in _whole_numbers(calls)]
    between = None if guidance is None else _range(guidance)
    whole("iterations", iterations, 0, 100_000)
    whole("seed", seed, 0, LARGEST_SEED)
    place = fits.place(run, out, weights=weights, data=data, overwrite=force)
    bar, started = Bar("fitting"), time.perf_counter()
    found: list[Any] = []
    refused: list[str] = []
    with asked_to_stop() as asked:

        def reference(done: int, total: int) -> None:
            if asked():  # nothing is there to keep yet
                raise KeyboardInterrupt
            bar.show(done, total, "reference")

        problem = pose(
            place.model,
            guidance=between,
            contexts=place.contexts,
            seed=seed,
            progress=reference,
        )
        for number in wanted:
            try:
                found.append(_one(problem, place, number, iterations, seed, asked))
            except ValueError as error:  # no better than a classical one: the others may be
                refused.append(str(error))
            if asked():
                break
    for line in refused:
        click.echo(line, err=True)
    if not found:
        raise ValueError(
            f"calls: expected one that can be fitted better than a classical solver, got none of {calls}; "
            "take other numbers"
        )
    click.echo(fits.table(found))
    ready: tuple[Ready, ...] = tuple(one.ready for one in found)
    written = place.write(ready)
    click.echo(f"{written}: {len(ready)} fitted tableaus, {time.perf_counter() - started:.0f} s")
    if asked():
        click.echo("stopped: the best so far is kept", err=True)
        raise SystemExit(asked.code)


def _one(problem: Any, place: Any, calls: int, iterations: int, seed: int, asked: Any) -> Any:
    """The fit of one number of calls, shown as it goes."""
    from toolkit.fit import fit as fitted

    bar = Bar(f"{calls} calls")
    for now in fitted(
        problem, calls, module=place.module, iterations=iterations, seed=seed, stop=asked
    ):
        bar.show(now.done, now.total, f"{now.stage}: error {now.error:.4g}")
    return now.fitted


def _whole_numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(WHOLE.fullmatch(word) for word in words) or len(set(words)) != len(words):
        raise ValueError(
            f"calls: expected different whole numbers with commas between, got {text[:40]!r}; like 4,6,8"
        )
    return [int(word) for word in words]


def _range(text: str) -> tuple[float, float]:
    words = [word.strip() for word in text.split(",")]
    if not all(REAL.fullmatch(word) for word in words) or len(words) > 2:
        raise ValueError(
            f"guidance: expected a weight or two with a comma between, got {text[:40]!r}; like 1,3"
        )
    return float(words[0]), float(words[-1])
