"""`toolkit VERB`: parse, call one public function, print.

One file per verb, loaded when it is called, so that `toolkit --help` is instant. A mistake of the
caller's is one line `error: ...` on stderr and exit 2; anything else that fails exits 1.
"""

import importlib
import sys
import traceback
import warnings

import click

from toolkit.cli.numbers import plain
from toolkit.cli.words import one_line

# verb: what it does (its file is toolkit/cli/VERB.py, its function VERB)
VERBS = {
    "quickstart": "Train digits, export them, draw samples: the whole chain in one go.",
    "train": "Train a network on a named data set or your own arrays.",
    "fit": "Choose the numbers of a few network calls so that they land like many.",
    "export": "Write a trained run as one self-describing .onnx and prove that it agrees.",
    "sample": "Draw samples from an .onnx with ONNX Runtime.",
    "verify": "Check that an .onnx is whole and safe to open; print its SHA-256 and spec.",
    "inspect": "Say what an .onnx generates, how it was trained and how to sample it.",
    "compare": "Run a sampler by torch, MLX and ONNX Runtime; show how far apart they are.",
    "check": "Say which execution providers would take how much of an .onnx.",
    "conformance": "Hold this machine's ONNX Runtime against exact answers: orders and errors.",
    "web": "Write a page that samples an .onnx in the browser, as a folder or one file.",
    "benchmark": "Time the files of a network side by side: error against milliseconds.",
    "plot": "Draw what solvers cost on an .onnx, or its flow in the plane.",
    "likelihood": "Say how likely data is under an .onnx of the likelihood form.",
    "evaluate": "Judge an .onnx against held-out data, beside a floor and a baseline.",
}


class Verbs(click.Group):
    """The verbs, each imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"toolkit.cli.{cmd_name}"), cmd_name
        )
        return plain(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from runtimes.choices import choose

            choose("verb", args[0], VERBS)
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="toolkit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train a flow or diffusion model, export it, sample it anywhere ONNX Runtime runs.

    \b
    toolkit train digits --out runs/digits
    toolkit export runs/digits --out digits.onnx
    toolkit sample digits.onnx -n 64 --label 7 --out sevens.png
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the caller's mistake, 1 any other failure, 130 Ctrl-C."""
    args = sys.argv[1:] if args is None else args
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = cli.main(args, prog_name="toolkit", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:
        if "--debug" in args:
            traceback.print_exc()
        click.echo(f"error: {_message(error)}", err=True)
        sys.exit(2 if _is_callers(error) else 1)


def _is_callers(error: Exception) -> bool:
    """Whether the caller's values are at fault, rather than the machine or the model."""
    values = (click.UsageError, ValueError, FileNotFoundError, FileExistsError, PermissionError)
    places = (NotADirectoryError, IsADirectoryError)
    return isinstance(error, (*values, *places))


def _warn(message: Warning | str, *where: object) -> None:
    """A warning is one line too, without the line of source that caused it."""
    click.echo(one_line(str(message)), err=True)


def _message(error: Exception) -> str:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return one_line(text) or type(error).__name__
