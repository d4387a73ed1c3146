"""`toolkit benchmark`: files side by side, by what their samples cost and how far off they are."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("models", metavar="MODEL.onnx...", nargs=-1, required=True)
@click.option("--calls", default="4,8,16,32", show_default=True, help="Network calls per sample.")
@click.option("-s", "--solver", help="Solvers to choose from.  [euler, heun, ab2, dpmpp_2m, ...]")
@click.option("--batch", default="1,16", show_default=True, help="Samples per call.")
@click.option(
    "--provider", default="cpu", show_default=True, help="cpu, cuda, tensorrt, coreml, directml."
)
@click.option("--threads", default=0, show_default=True, help="0 measures one against all cores.")
@click.option("--run", help="The run folder the files come from, for the peers that need it.")
@click.option("--peers", default="usual", show_default=True, help="Names, or usual, all, none.")
@click.option("-n", "--count", default=64, show_default=True, help="Samples for the error.")
@click.option("-l", "--label", help="A label, or several to cycle through.  [all]")
@click.option("-g", "--guidance", type=float, help="[the model's own]")
@click.option("--seed", default=0, show_default=True, help="Of the samples.")
@click.option("--rounds", default=9, show_default=True, help="Of timing, 2 or more.")
@click.option("--clock", default="wall", show_default=True, help="wall, or cpu on a busy machine.")
@click.option("-o", "--out", help="A picture, .png: error against milliseconds.")
@click.option("--json", "as_json", metavar="FILE", help="Everything measured, as JSON.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out and --json.")
def benchmark(
    models: tuple[str, ...],
    calls: str,
    solver: str | None,
    batch: str,
    provider: str,
    threads: int,
    run: str | None,
    peers: str,
    count: int,
    label: str | None,
    guidance: float | None,
    seed: int,
    rounds: int,
    clock: str,
    out: str | None,
    as_json: str | None,
    force: bool,
) -> None:
    """Time the samples of one network's files side by side, and measure how far off they end.

    One file for each precision or form. For every number of calls the solver that errs least in the
    first file is taken. Milliseconds are per sample; the front holds every choice that no other beats in
    both. "/ bare" is the time over that of as many bare calls of the network.

    The usual peers take part where they are installed (pip install 'toolkit[peers]'): diffusers, openvino,
    and with --run torch and diffusers+torch. torch.compile, which compiles for a minute or more for each
    batch (that is no part of its times), and mlx, which is slow but on a Mac, take part when asked for by
    name.

    \b
    toolkit benchmark digits.onnx digits-int8.onnx --run runs/digits --out digits-front.png
    toolkit benchmark digits.onnx --run runs/digits --peers usual,torch.compile
    toolkit benchmark digits.onnx --calls 4,6,8 --batch 1,64 --json digits.json
    """
    from runtimes.files import refuse_existing, write_whole
    from runtimes.limits import stopped_by_signals
    from toolkit import benchmark as measured
    from toolkit import pareto, plots
    from toolkit.pictures import require_ending

    for path in (out, as_json):
        if path is not None:
            refuse_existing(path, force)
    if out is not None:
        require_ending(out, ".png")
        plots.figure(1, 1)  # without matplotlib this ends here
    with stopped_by_signals():
        result = measured.measure(
            models,
            request=_request(models[0], label, guidance, seed),
            calls=_wholes("calls", calls, 1),
            solvers=_solvers(solver),
            batches=_wholes("batch", batch, 1),
            providers=[word.strip() for word in provider.split(",")],
            threads=_whole("threads", threads, 0, 1024),
            run=_run(run),
            peers=_peers(peers, run),
            n=_whole("count", count, 2),
            rounds=_whole("rounds", rounds, 2),
            clock=clock,
            progress=lambda text: click.echo(f"measuring {text}", err=True),
        )
    click.echo(pareto.table(result))
    if as_json is not None:
        write_whole(as_json, json.dumps(asdict(result), indent=1).encode(), overwrite=force)
        click.echo(f"{as_json}: {len(result.rows)} rows")
    if out is not None:
        plots.save(out, pareto.pareto_figure(result.rows))
        click.echo(f"{out}: error against milliseconds per sample")


def _request(path: str, label: str | None, guidance: float | None, seed: int) -> dict[str, Any]:
    import numpy as np

    import runtimes
    from toolkit.cli.sample import labels

    condition = runtimes.load(path, provider="cpu", threads=1).spec.condition
    request: dict[str, Any] = {"seed": seed}
    if guidance is not None:
        request["guidance"] = guidance
    if label is not None:
        request["label"] = labels(label)
    elif condition.kind == "label":
        request["label"] = list(range(condition.classes))
    elif condition.kind == "context":
        request["context"] = np.zeros(condition.shape).tolist()
    return request


def _solvers(text: str | None) -> list[str]:
    from runtimes.choices import choose
    from runtimes.solvers import SOLVERS
    from toolkit.benchmark import SOLVERS as USUAL

    if text is None:
        return list(USUAL)
    plain = [name for name, solver in SOLVERS.items() if not solver.noisy]
    return [choose("solver", word.strip(), plain) for word in text.split(",")]


def _run(text: str | None) -> Path | None:
    from toolkit import checkpoints

    if text is None:
        return None
    checkpoints.latest(Path(text))  # without one this ends here
    return Path(text)


def _peers(text: str, run: str | None) -> list[str]:
    """The names in words and groups. ValueError for one asked for by its name that cannot take part."""
    from runtimes.choices import choose
    from toolkit.peers import PEERS, USUAL

    groups = {"usual": list(USUAL), "all": list(PEERS), "none": []}
    words = [choose("peers", word.strip(), (*groups, *PEERS)) for word in text.split(",")]
    if "none" in words and len(words) > 1:
        raise ValueError(f"peers: expected none alone, got {text[:80]!r}; leave out none")
    for word in words:
        if word in PEERS and PEERS[word].of_run and run is None:
            raise ValueError(f"peers: expected a run beside {word}, got none; give --run FOLDER")
    return [name for word in words for name in groups.get(word, [word])]


def _wholes(name: str, text: str, least: int) -> list[int]:
    from toolkit.cli.numbers import WHOLE

    words = [word.strip() for word in text.split(",")]
    if not all(WHOLE.fullmatch(word) for word in words):
        raise ValueError(f"{name}: expected whole numbers like 4,8, got {text[:80]!r}; correct it")
    return [_whole(name, int(word), least) for word in words]


def _whole(name: str, value: int, least: int, most: int = 10_000) -> int:
    from runtimes.conditions import whole

    return whole(name, value, least, most)
