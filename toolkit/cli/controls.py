"""What the options --from, --mask, --invert, --noise and --interpolate of `sample` ask for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from runtimes.sample import Sampleable


RAN = {
    "host": "",
    "graph": " in the graph",
    "step": " in the graph, step by step",
    "seeded": " in the graph, noise included",
    "unrolled": " in the graph, unrolled",
}
COUNT = 16  # samples, where neither -n nor a file says how many


@dataclass(frozen=True)
class Wanted:
    """The options as given: files of arrays by name, None where left out."""

    start: str | None = None
    strength: float | None = None
    mask: str | None = None
    invert: bool = False
    noise: str | None = None
    interpolate: int | None = None


def plan(model: "Sampleable", count: int | None, wanted: Wanted, request: dict[str, Any]) -> Any:
    """What `runtimes.sample.collect` runs for these options, each checked against the others."""
    import runtimes
    from runtimes import controls

    _check(wanted)
    if wanted.interpolate is not None:
        n = COUNT if count is None else count
        return controls.interpolating(model, n, to=wanted.interpolate, **request)
    if wanted.noise is not None:
        return controls.decoding(model, _rows("noise", wanted.noise, model, count), **request)
    if wanted.start is None:
        return runtimes.plan(model, COUNT if count is None else count, **request)
    data = _rows("from", wanted.start, model, count)
    if wanted.invert:
        return controls.inverting(model, data, **request)
    if wanted.mask is not None:
        return controls.inpainting(model, data, array("mask", wanted.mask), **request)
    strength = 0.6 if wanted.strength is None else wanted.strength
    return controls.editing(model, data, strength=strength, **request)


def ran(todo: Any, *, every_state: bool) -> str:
    """Who runs the loop, in words; ValueError where every state is wanted and only the last is had."""
    if every_state and todo.way in ("seeded", "unrolled"):
        raise ValueError(
            f"show-trajectory: expected a file that shows its states, got the form {todo.way!r}; export the "
            "form sampler"
        )
    return RAN[todo.way]


def finished(todo: Any, states: "np.ndarray") -> "np.ndarray":
    """The last states of a plan as they are written: an inversion's as noise."""
    from runtimes import controls

    return controls.as_noise(todo, states) if todo.times[0] > todo.times[-1] else states


def array(what: str, path: str) -> Any:
    """The array in a .npy file; ValueError in words of the option `what`."""
    from pathlib import Path

    from toolkit.data.arrays import arrays_in

    try:
        found = list(arrays_in(Path(path)).values())
    except (OSError, ValueError) as error:
        raise ValueError(f"{what}: expected a .npy file of one array, got {error}") from None
    if len(found) != 1:
        raise ValueError(
            f"{what}: expected a .npy file of one array, got {len(found)} in {path}; keep one"
        )
    return found[0]


def _rows(what: str, path: str, model: "Sampleable", count: int | None) -> Any:
    """The samples in a file, repeated in turn until there are `count` of them."""
    import numpy as np

    from runtimes import controls
    from runtimes.conditions import whole
    from runtimes.sample import MOST_SAMPLES

    if count is not None:
        whole("n", count, 1, MOST_SAMPLES)
    rows = controls.rows(what, array(what, path), model.spec.shape)
    return rows if count is None else np.resize(rows, (count, *rows.shape[1:]))


def _check(wanted: Wanted) -> None:
    """Raise ValueError for options that need or exclude each other."""
    ways = {"interpolate": wanted.interpolate, "noise": wanted.noise, "from": wanted.start}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ValueError(
            f"{given[0]}: expected one start, got --{' and --'.join(given)}; give one"
        )
    uses = {"strength": wanted.strength, "mask": wanted.mask, "invert": wanted.invert or None}
    asked = [name for name, value in uses.items() if value is not None]
    if asked and wanted.start is None:
        raise ValueError(
            f"{asked[0]}: expected --from FILE.npy beside it, got none; give the data"
        )
    if len(asked) > 1:
        raise ValueError(f"{asked[0]}: expected it alone, got --{' and --'.join(asked)}; give one")
