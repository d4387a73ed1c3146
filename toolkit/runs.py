"""A training run and its folder: all that the trainers have in common, with no framework in it.

A trainer says how to take one step and how to read its arrays; `follow` does the rest: the folder, the
log, the checkpoints, the moving average of the loss and the end. `open_run` is the way back. The
folder is the same whoever trained it, so the other framework samples and exports from it too.
"""

import hashlib
import json
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.choices import choose
from runtimes.files import write_whole
from runtimes.spec import Spec
from runtimes.spec import from_json as spec_from_json
from runtimes.spec import to_json as spec_to_json
from toolkit import checkpoints, ema, networks
from toolkit import recipe as recipes
from toolkit.checkpoints import Checkpoint
from toolkit.data import Data
from toolkit.draws import draw
from toolkit.networks import Sizes
from toolkit.networks.shapes import misfit
from toolkit.processes import Processes
from toolkit.recipe import Recipe, rate_at, spec_of

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Progress:
    """After step `step` of `steps`. saved: the checkpoint just written, if one was (first process only).

    loss: of this step; mean_loss: its moving average over about a hundred steps.
    """

    step: int
    steps: int
    loss: float
    mean_loss: float
    steps_per_second: float
    seconds_left: float
    saved: Path | None = None


@dataclass(kw_only=True)
class Run:
    """A training run in memory: what is known of it without its arrays.

    made_with: the machine and the versions that its bits depend on. count: of trained numbers.
    """

    recipe: Recipe
    data: Data
    out: Path
    ours: Processes
    framework: str
    made_with: Mapping[str, Any]
    count: int
    step: int = 0
    mean_loss: float = 0.0
    clock: deque[float] = field(default_factory=lambda: deque(maxlen=50))


def begin(
    recipe: Recipe,
    data: Data,
    out: Path,
    ours: Processes,
    framework: str,
    made_with: Mapping[str, Any],
    resume: bool,
) -> Checkpoint | None:
    """The checkpoint to go on from, or None; whatever can be known to fail fails here, before step 1."""
    draw(recipe, data, 0)
    ours.share(recipe.batch)
    networks.sizes_of(recipe, data.shape, networks.condition_of(data))
    if resume:
        checkpoint = checkpoints.latest(out)
        _check_same(recipe, data, out, checkpoint, framework, made_with)
        return checkpoint
    if ours.first and out.is_dir() and any(p.name[0] != "." for p in out.iterdir()):
        raise FileExistsError(
            f"{out}: expected no such folder or an empty one, got files in it; "
            "give --resume or another --out"
        )
    return None


def follow(
    run: Run,
    step: Callable[[], float],
    arrays: Callable[[], Arrays],
    anybody: Callable[[bool], bool],
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    """Step to the end, or until a process is asked to stop: all stop after the same step then.

    step() takes one and says its loss; arrays() are a checkpoint's; anybody(asked) says whether any
    process was. A run at step 0 is a new one.
    """
    if run.ours.first:
        _open_folder(run, arrays)
    loss = run.mean_loss
    run.clock.append(time.perf_counter())
    asked = False
    while run.step < run.recipe.steps and not asked:
        loss = step()
        run.mean_loss = ema.update(run.mean_loss, loss, ema.decay_at(run.step, 0.99))
        run.step += 1
        run.clock.append(time.perf_counter())
        asked = anybody(stop())
        yield _report(run, loss, asked, arrays)
    if run.ours.first:
        _write_spec(run, loss=round(run.mean_loss, 6))


def check_finite(run: Run, loss: float, size: float) -> None:
    """FloatingPointError unless the loss and the size of its gradient are finite; ask before a step."""
    if not math.isfinite(loss + size):
        rate = rate_at(run.recipe, run.step)
        raise FloatingPointError(
            f"step {run.step + 1}: expected a finite loss, got {loss} with a gradient of {size}; "
            f"lower lr (it is {rate:.2g} now) or look at the data"
        )


def open_run(
    folder: Path, which: str, shapes_of: Callable[[Recipe, Sizes], Mapping[str, tuple[int, ...]]]
) -> tuple[Recipe, Sizes, Spec, Arrays]:
    """What a network is built from and filled with. which: ema or network, of the newest checkpoint.

    shapes_of must cost nothing: a stranger's sizes are believed only once the arrays have shown them.
    """
    choose("weights", which, ("ema", "network"))
    checkpoint = checkpoints.latest(folder)
    spec = spec_from_json((folder / "spec.json").read_text(encoding="utf-8"))
    recipe = _recipe(folder, checkpoint)
    sizes = networks.sizes_of(recipe, spec.shape, spec.condition)
    return recipe, sizes, spec, arrays_in(folder, checkpoint, which, shapes_of(recipe, sizes))


def arrays_in(
    folder: Path, checkpoint: Checkpoint, part: str, shapes: Mapping[str, tuple[int, ...]]
) -> Arrays:
    """One part of a checkpoint; ValueError unless it has exactly these names and shapes in float32."""
    arrays = checkpoint.part(part)
    floats = {name: array for name, array in arrays.items() if array.dtype == np.float32}
    wrong = misfit(shapes, floats) or misfit(shapes, arrays)
    if wrong is not None:
        name, mine, found = wrong
        raise ValueError(
            f"{folder}: expected {part}/{name} {mine or 'not'} in the checkpoint, "
            f"got {found or 'none'}; train again"
        )
    return arrays


def framework_of(folder: Path) -> str:
    """Which framework wrote the newest checkpoint in a run folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said again when the run is opened
        return str(checkpoints.latest(folder).facts.get("framework"))


def _snapshot(run: Run, arrays: Arrays) -> Checkpoint:
    """The run as it is now."""
    facts = {"framework": run.framework, "recipe": asdict(run.recipe), "data": _digest(run.data)}
    facts |= {"mean_loss": run.mean_loss, "made_with": dict(run.made_with)}
    return Checkpoint(run.step, arrays, facts)


def _report(run: Run, loss: float, asked: bool, arrays: Callable[[], Arrays]) -> Progress:
    """Write what is due after a step, or after the last before a stop, and say where the run stands."""
    recipe, last = run.recipe, asked or run.step == run.recipe.steps
    rate = (len(run.clock) - 1) / max(run.clock[-1] - run.clock[0], 1e-9)
    saved = None
    if run.ours.first:
        if last or run.step % recipe.log_every == 0:
            facts = {"step": run.step, "loss": loss, "mean_loss": run.mean_loss}
            facts |= {"lr": rate_at(recipe, run.step - 1), "steps_per_second": rate}
            _log(run.out / "metrics.jsonl", json.dumps(facts) + "\n")
        if last or run.step % recipe.save_every == 0:
            saved = checkpoints.save(run.out, _snapshot(run, arrays()))
    left = (recipe.steps - run.step) / rate
    return Progress(run.step, recipe.steps, loss, run.mean_loss, rate, left, saved)


def _log(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise type(error)(f"{path}: expected to write a line, got {error.strerror}") from None


def _open_folder(run: Run, arrays: Callable[[], Arrays]) -> None:
    """A new run writes step 0, its recipe and its spec; a resumed one forgets what came after.

    The checkpoint comes first and the others are written anew on every start: wherever a kill or a
    full disk falls, the folder is as good as empty or can be resumed.
    """
    checkpoints.tidy(run.out)
    log = run.out / "metrics.jsonl"
    if run.step == 0:
        checkpoints.save(run.out, _snapshot(run, arrays()))
    if log.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        write_whole(log, "".join(line for line in lines if _logged(line, run.step)).encode())
    write_whole(run.out / "recipe.json", recipes.to_json(run.recipe).encode())
    _write_spec(run)


def _logged(line: str, step: int) -> bool:
    """Whether a line of the log is whole and of a step up to this one."""
    try:
        return line[-1] == "\n" and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):  # half a line of a full disk
        return False


def _write_spec(run: Run, **facts: Any) -> None:
    spec = spec_of(run.recipe, run.data, parameters=run.count, **facts)
    write_whole(run.out / "spec.json", spec_to_json(spec).encode())


def _recipe(folder: Path, checkpoint: Checkpoint) -> Recipe:
    """The recipe a checkpoint was trained with; ValueError for one of another trainer."""
    facts = checkpoint.facts
    if not isinstance(facts.get("recipe"), dict) or not isinstance(facts.get("made_with"), dict):
        raise ValueError(
            f"{folder}: expected a checkpoint of 'toolkit train', got one without a recipe; train again"
        )
    return recipes.from_json(json.dumps(facts["recipe"]))


def _check_same(
    recipe: Recipe,
    data: Data,
    out: Path,
    checkpoint: Checkpoint,
    framework: str,
    made_with: Mapping[str, Any],
) -> None:
    """ValueError for another framework, recipe or data; a warning for another machine."""
    facts = checkpoint.facts
    different = recipes.first_difference(recipe, _recipe(out, checkpoint))
    if facts.get("framework") != framework:
        different = ("framework", framework, facts.get("framework"))
    elif different is None and facts.get("data") != _digest(data):
        before = str(facts.get("data"))[:12]
        different = ("data", f"rows with SHA-256 {_digest(data)[:12]}", before)
    if different is not None:
        name, mine, before = different
        raise ValueError(
            f"{name}: expected {before!r} as in {out}, got {mine!r}; "
            "resume with the same or train in another folder"
        )
    old = facts["made_with"]
    others = [f"{k} {old.get(k)} before, {v} now" for k, v in made_with.items() if old.get(k) != v]
    if others:
        warnings.warn(f"not bit-exact: {'; '.join(others)} ({out})", stacklevel=4)


def _digest(data: Data) -> str:
    digest = hashlib.sha256(f"{data.x.shape} {data.classes} {data.step}".encode())
    for array in (data.x, data.y):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
