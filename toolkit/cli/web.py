"""`toolkit web`: a page in which a model draws, for any host that serves files, or as one file."""

import click


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option(
    "-o", "--out", required=True, help="The folder to write, or with --inline the .html."
)
@click.option("--inline", is_flag=True, help="One file that runs by itself, from file:// too.")
@click.option(
    "--ort",
    metavar="FOLDER",
    help="onnxruntime-web's dist folder, to copy from.  [stays on cdn.jsdelivr.net, pinned]",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")
def web(model: str, out: str, inline: bool, ort: str | None, force: bool) -> None:
    """Write a page that samples MODEL.onnx, of the form sampler, in the browser that opens it.

    The folder needs no program on the server: python -m http.server will do, or any static host. Seen
    once, it works without a network. Solvers and steps are those the file carries.

    \b
    toolkit export runs/digits --form sampler --out digits-sampler.onnx
    toolkit web digits-sampler.onnx --out site
    npm install --ignore-scripts onnxruntime-web
    toolkit web digits-sampler.onnx --inline --out digits.html --ort node_modules/onnxruntime-web/dist
    """
    from toolkit.web.site import write_folder, write_page

    size = (write_page if inline else write_folder)(out, model, ort, overwrite=force)
    fix = "open it" if inline else f"python -m http.server -d {out}, then http://localhost:8000"
    click.echo(f"{out}: {size:,} bytes; {fix}")
