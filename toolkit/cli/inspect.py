"""`toolkit inspect`: a model file in words."""

import json
from typing import Any

import click

from toolkit.cli.words import one_line

FORM_WORDS = {
    "network": "the prediction alone; the solver runs outside",
    "likelihood": "products of the Jacobian beside the prediction",
    "sampler": "the solver inside, as a table of numbers that can be replaced",
    "seeded": "the solver and its noise inside: a seed is enough",
    "unrolled": "a fixed solver, batch and number of steps, without control flow",
}


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="The spec and the parity report as JSON.")
def inspect(model: str, as_json: bool) -> None:
    """Say what MODEL.onnx generates, how it was trained, and how it is best sampled.

    \b
    toolkit inspect digits.onnx
    """
    import runtimes
    from runtimes.modelfile import PRECISION_KEY, REPORT_KEY, SPEC_KEY

    opened = runtimes.load(model, provider="cpu")
    metadata = opened.file.metadata
    report = _report(opened) if REPORT_KEY in metadata else None
    if as_json:
        found = {"spec": json.loads(metadata[SPEC_KEY]), "parity": report}
        if PRECISION_KEY in metadata:
            found["precision"] = json.loads(_fidelity(opened.file).to_json())
        click.echo(json.dumps(found, indent=1))
        return
    for word, text in describe(opened, report):
        click.echo(f"{word:<14} {one_line(text)}")


def _report(model: Any) -> dict[str, Any]:
    """The parity report a file carries: a stranger's words, so ModelError if they are no report."""
    from runtimes import ModelError
    from runtimes.modelfile import REPORT_KEY

    try:
        report = json.loads(model.file.metadata[REPORT_KEY])
        rows = [float(row["relative"]) for row in report["rows"]]
        if rows and all(isinstance(report[key], str) for key in ("framework", "runtime")):
            return dict(report)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ModelError(
        f"{model.file.path}: expected a parity report, got another text; export again"
    )


def describe(model: Any, report: dict[str, Any] | None) -> list[tuple[str, str]]:
    """(word, text) lines about an open model; report: its parity report, if it carries one."""
    from runtimes.modelfile import PRECISION_KEY
    from toolkit import show

    spec, file = model.spec, model.file
    sampler, kind = spec.sampler, show.kind_of(spec.shape)
    low_high = "" if spec.value_range is None else " in [{:g}, {:g}]".format(*spec.value_range)
    lines = [
        ("generates", f"{spec.name}: {kind} of shape {spec.shape}, float32{low_high}"),
        ("condition", _condition(spec.condition)),
        ("path", f"{spec.schedule} schedule; the network predicts the {spec.prediction}"),
        (
            "trained",
            ", ".join(f"{key} {value}" for key, value in sorted(spec.training.items()))
            or "not said",
        ),
        (
            "sample with",
            f"{sampler.solver}, {sampler.steps} steps, {sampler.grid} grid, guidance {sampler.guidance:g}",
        ),
        ("inputs", _values(model.session.get_inputs())),
        ("with defaults", _values(model.session.get_overridable_initializers())),
        ("outputs", _values(model.session.get_outputs())),
        (
            "graph",
            f"opset {file.opset}, {sum(file.operators.values())} nodes, {len(file.content):,} bytes",
        ),
        ("operators", _operators(file.operators)),
        ("sha256", file.digest),
    ]
    lines.insert(-1, ("form", f"{model.form}: {FORM_WORDS[model.form]}"))
    if model.tableaus:
        ready = ", ".join(f"{one.solver} {one.steps}" for one in model.tableaus)
        lines.insert(-1, ("tableaus", f"{ready} steps"))
    if PRECISION_KEY in file.metadata:
        lines.insert(-1, ("precision", _precision(file)))
    if report is not None:
        worst = max(float(row["relative"]) for row in report["rows"])
        text = f"{worst:.1e} at most, {report['framework']} against {report['runtime']}"
        lines.insert(-1, ("parity", text))
    return [(word, text) for word, text in lines if text]


def _precision(file: Any) -> str:
    """What the weights are kept in, and what that cost."""
    found = _fidelity(file)
    return (
        f"{found.precision}: end error {found.end_error:.1e} of {found.tolerance:.0e} against fp32, "
        f"sliced Wasserstein {found.sliced:.1e} (other seeds {found.other_seeds:.1e})"
    )


def _fidelity(file: Any) -> Any:
    """What a file says of its precision: a stranger's words, so ModelError if they say nothing."""
    from export.fidelity import from_json
    from runtimes import ModelError
    from runtimes.modelfile import PRECISION_KEY

    try:
        return from_json(file.metadata[PRECISION_KEY])
    except ValueError as error:
        raise ModelError(f"{file.path}: {error}") from None


def _condition(condition: Any) -> str:
    if condition.kind == "label":
        names = f": {', '.join(condition.names)}" if condition.names else ""
        return f"label, one of {condition.classes}{names}"
    return "none" if condition.kind == "none" else f"context, float32 {condition.shape}"


def _operators(counts: dict[str, int]) -> str:
    """The most frequent first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def _values(values: list[Any]) -> str:
    return ", ".join(
        f"{value.name} {value.type[7:-1]} ({', '.join(map(str, value.shape))})" for value in values
    )
