"""`toolkit check`: which execution providers would take how much of a model file."""

import click


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option(
    "--require",
    multiple=True,
    metavar="NAME",
    help="Fail unless this one takes the whole graph in one piece: coreml, coreml-nn or nnapi; repeatable.",
)
def check(model: str, require: tuple[str, ...]) -> None:
    """Say how much of MODEL.onnx CoreML (ML programs), CoreML's older networks and NNAPI take.

    The file is verified first. What a provider does not take runs on the CPU, and every border between
    the two costs a copy; one partition with all nodes is best, and what the form unrolled is for.
    Nothing is run: ONNX Runtime's own lists of operators are consulted.

    \b
    toolkit check digits-unrolled.onnx --require coreml --require nnapi
    """
    from export.placement import PROVIDERS, placement
    from runtimes import modelfile
    from runtimes.choices import choose

    for name in require:
        choose("require", name, PROVIDERS)
    found = placement(modelfile.read(model).content)
    click.echo(f"{'provider':<10} partitions        nodes   left to the CPU")
    for row in found:
        left = [*row.refused, *([f"{row.unsized} of free size"] if row.unsized else [])]
        click.echo(
            f"{row.provider:<10} {row.partitions:>10} {row.taken:>6}/{row.nodes:<6} "
            f"  {', '.join(left) or '-'}"
        )
    for row in found:
        if row.provider in require and not row.whole:
            raise click.ClickException(
                f"{model}: expected one partition with all {row.nodes} nodes on {row.provider}, got "
                f"{row.partitions} with {row.taken}; export it with --form unrolled"
            )
