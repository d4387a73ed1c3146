"""A comparison on a terminal, and as JSON for programs; `pages` writes it for a browser."""

import json
import math
from collections.abc import Sequence

import numpy as np

from .backends import Absent
from .compare import Comparison, Row


def table(result: Comparison, absent: Sequence[Absent] = ()) -> str:
    """The comparison on a terminal."""
    first = result.rows[0].backend.name
    wide = max(24, *(len(row.backend.name) for row in result.rows)) + 2
    head = f"{'':{wide}}{'on path':>10}{'at end':>10}{'absolute':>10}"
    speed = any(row.rate for row in result.rows)
    head += f"{'samples/s':>22}{'cold start':>12}{'memory':>9}" if speed else ""
    lines = [words(result), f"largest errors against {first}, relative to its largest value", head]
    for row in result.rows:
        mark = "  outside" if row in result.outside else ""
        lines.append(f"{row.backend.name:{wide}}{_figures(row, result, speed)}{mark}")
    lines = [line.rstrip() for line in lines]
    lines += [f"{row.backend.name}: {row.failure}" for row in result.rows if row.failure]
    lines += [f"{one.name:{wide}}absent: {one.reason}" for one in absent]
    return "\n".join([*lines, verdict(result)])


def verdict(result: Comparison) -> str:
    """Who is outside the tolerance, or that nobody is."""
    if not result.outside:
        return f"all {len(result.rows)} within the tolerance of {_short(result.tolerance)}"
    names = ", ".join(row.backend.name for row in result.outside)
    return f"outside the tolerance of {_short(result.tolerance)}: {names}"


def _short(value: float) -> str:
    """0.0001 -> '1e-4'."""
    return np.format_float_scientific(value, trim="-", exp_digits=1)


def words(result: Comparison) -> str:
    """The run they all did, in one line."""
    request, todo = result.request, result.plan
    text = f"{request['solver']}, {len(todo.times) - 1} steps, {todo.calls} network calls"
    weight = request.get("guidance")
    guided = "" if weight is None else f", guidance {weight:g}"
    return f"{text}, {len(todo.seeds)} samples{guided}, seed {request['seed']}"


def _figures(row: Row, result: Comparison, speed: bool) -> str:
    if row is result.rows[0]:
        line = f"{'reference':>10}{'':20}"
    else:
        end = math.nan if row.sample is None else row.relative[-1]
        largest = math.nan if row.sample is None else row.absolute[-1]
        line = f"{row.worst:>10.1e}{end:>10.1e}{largest:>10.1e}"
    if not speed:
        return line
    rate = "" if row.rate is None else "{1:.3g} [{0:.3g}, {2:.3g}]".format(*row.rate)
    start = "" if row.cold is None else f"{row.cold:>10.2f} s{row.megabytes:>6.0f} MB"
    return f"{line}{rate:>22}{start}"


def to_json(result: Comparison, absent: Sequence[Absent]) -> str:
    """Everything but the samples, for programs; what is not a number there is null."""
    request = {
        k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in result.request.items()
    }
    rows = [
        {
            "name": row.backend.name,
            "version": row.backend.version,
            "within": row not in result.outside,
            "failure": row.failure or None,
            "steps": row.steps,
            "absolute": [_number(error) for error in row.absolute],
            "relative": [_number(error) for error in row.relative],
            "samples_per_second": row.rate,
            "cold_start_seconds": row.cold,
            "peak_megabytes": row.megabytes,
        }
        for row in result.rows
    ]
    whole = {
        "machine": result.machine,
        "request": request,
        "samples": len(result.plan.seeds),
        "times": result.plan.times,
        "tolerance": result.tolerance,
        "within": not result.outside,
        "reference": result.rows[0].backend.name,
        "rows": rows,
        "absent": [vars(one) for one in absent],
    }
    return json.dumps(whole, indent=1, allow_nan=False)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
