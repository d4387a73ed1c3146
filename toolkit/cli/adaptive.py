"""What `sample --solver dopri5` runs: steps of each sample's own, by `runtimes.integrate`."""

from typing import TYPE_CHECKING, Any

from runtimes.adaptive import PAIRS
from runtimes.grids import check_steps
from toolkit.cli.controls import COUNT, Wanted

if TYPE_CHECKING:
    from runtimes.integrate import Result
    from runtimes.session import Model
    from toolkit.cli.progress import Bar

# options that only a walk along a grid has a use for, as they are when left out
WALKS = {
    "calls": None,
    "eta": 1.0,
    "diffusion": "sigma",
    "rescale": 0.0,
    "cfgpp": None,
    "guide": None,
    "how": "auto",
}


def integrate(
    model: "Model",
    count: int | None,
    request: dict[str, Any],
    wanted: Wanted,
    *,
    tolerance: float | None,
    trajectory: bool,
    batch: int,
    bar: "Bar",
) -> "Result":
    """The samples of a `sample` request; ValueError for an option that has no place here."""
    import runtimes
    from runtimes.integrate import check_tolerance

    given = [name for name, unused in WALKS.items() if request[name] != unused]
    given += [] if wanted == Wanted() else ["from, mask, invert, noise or interpolate"]
    if given:
        raise _out_of_place(given[0])
    tolerance = 1e-5 if tolerance is None else tolerance
    check_tolerance("tolerance", tolerance)
    return runtimes.integrate(
        model,
        COUNT if count is None else count,
        method=request["solver"],
        rtol=tolerance,
        atol=tolerance,
        times=_times(request["grid"], request["steps"], trajectory),
        batch=batch,
        progress=bar.show,
        **{
            name: request[name]
            for name in ("label", "context", "guidance", "interval", "chart", "seed")
        },
    )


def refuse_tolerance(tolerance: float | None) -> None:
    """Raise ValueError for a tolerance beside a solver that walks a grid."""
    if tolerance is not None:
        raise ValueError(
            f"tolerance: expected none for a solver that walks a grid, got {tolerance}; "
            f"use --solver {' or '.join(PAIRS)}"
        )


def cost(result: "Result") -> str:
    """The network calls of each sample, in words."""
    calls = result.calls
    return f"{calls.min()} to {calls.max()} network calls each ({calls.mean():.0f} on average)"


def _times(grid: str | list[float] | None, steps: int | None, trajectory: bool) -> list[float]:
    """The times at which states are wanted: one's own, or evenly spaced ones along a trajectory."""
    if isinstance(grid, list):
        return grid
    for name, given in (("grid", grid), ("steps", None if trajectory else steps)):
        if given is not None:
            raise _out_of_place(name)
    count = check_steps((20 if steps is None else steps) if trajectory else 1)
    return [k / count for k in range(count + 1)]


def _out_of_place(name: str) -> ValueError:
    return ValueError(
        f"{name}: expected none for {' or '.join(PAIRS)}, which choose their own steps, got one; "
        "leave it out, or give --tolerance"
    )
