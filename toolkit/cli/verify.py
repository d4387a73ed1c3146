"""`toolkit verify`: whether a model file is whole, ours, safe to open, and what its spec says."""

import json
import os

import click


@click.command()
@click.argument("model", metavar="MODEL.onnx")
def verify(model: str) -> None:
    """Check MODEL.onnx as every load does, and print its SHA-256 and its spec.

    The digest is that of all bytes before the seal at the file's end, so it names the model. Exit code
    1 with the reason when anything about the file is in doubt.

    \b
    toolkit verify digits.onnx
    """
    import runtimes
    from runtimes.modelfile import SPEC_KEY

    try:
        opened = runtimes.load(model, provider="cpu")
    except runtimes.ModelError as error:
        if not os.path.getsize(model):  # as good as absent: the caller's mistake, exit 2
            raise
        raise click.ClickException(str(error)) from error
    # ASCII: whatever a stranger wrote in there cannot move the cursor
    spec = json.dumps(json.loads(opened.file.metadata[SPEC_KEY]), indent=1, sort_keys=True)
    click.echo(f"sha256 {opened.file.digest}\n{spec}")
