"""Where a fit takes its network from and leaves its tableaus: a run folder, or an .onnx and its copy.

    RUN/fitted.json    {"weights": SHA-256 of the network fitted to, "tableaus": [...]}

The tableaus are written as in a model's metadata (`runtimes.tableaus`). `toolkit export` reads the file
and leaves it out, with a word, when the run has been trained on since.
"""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes import tableaus
from runtimes.files import refuse_existing, write_whole
from runtimes.sample import Sampleable
from runtimes.tableaus import Ready

if TYPE_CHECKING:
    from toolkit.fit import Fitted

NAME = "fitted.json"


@dataclass(frozen=True)
class Place:
    """A network to fit to: its model, the torch module behind it (or None), contexts to draw from.

    out: the file to write; source: the .onnx that it becomes a copy of, or None. weights: their SHA-256.
    """

    model: Sampleable
    module: Any
    contexts: np.ndarray | None
    out: Path
    source: Any
    overwrite: bool
    weights: str = ""

    def write(self, ready: tuple[Ready, ...]) -> Path:
        """All of the tableaus, or nothing."""
        if self.source is not None:
            from export.fitted import with_fitted

            return with_fitted(self.source, ready, self.out, overwrite=self.overwrite)
        text = {"weights": self.weights, "tableaus": json.loads(tableaus.to_json(ready))}
        return write_whole(self.out, json.dumps(text).encode(), overwrite=self.overwrite)


def place(run: str, out: str | None, *, weights: str, data: str | None, overwrite: bool) -> Place:
    """A run folder's, or an .onnx's; what cannot be written is refused before anything is opened.

    data: the set whose contexts are drawn from, where a run's recipe or a model's spec names none.
    """
    if run.endswith(".onnx"):
        if weights != "ema":
            raise ValueError(
                f"weights: expected none beside an .onnx, got {weights!r}; leave it out"
            )
        return _file(run, out, data, overwrite)
    if out is not None:
        raise ValueError(
            f"out: expected none beside a run folder, which gets a {NAME}, got {out}; leave it out"
        )
    folder = Path(run)
    refuse_existing(folder / NAME, overwrite)
    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"run: expected torch, whose gradients a fit of a run folder takes, got none; pip install "
            f"'toolkit[torch]', or export {run} and fit the .onnx, which needs none"
        )
    from export import TorchModel
    from toolkit.cli.train import trainer

    module, spec = trainer("torch").load(folder, which=weights)
    contexts = None
    if spec.condition.kind == "context":
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        contexts = _contexts(data or str(recipe["data"]))
    model, out_file = TorchModel(spec, module), folder / NAME
    return Place(model, module, contexts, out_file, None, overwrite, digest(folder, weights))


def _file(run: str, out: str | None, data: str | None, overwrite: bool) -> Place:
    if out is None:
        raise ValueError(
            f"out: expected where to write the fitted copy of {run}, got none; give --out"
        )
    refuse_existing(out, overwrite)
    import runtimes
    from toolkit.data import of_model

    model = runtimes.load(run)
    contexts = None
    if data is not None and model.spec.condition.kind != "context":
        raise ValueError(
            f"data: expected it for a model with contexts, got one for {model.spec.condition.kind!r}; "
            "leave it out"
        )
    if model.spec.condition.kind == "context":
        known = of_model(model.spec, data)
        contexts = None if known is None else known.y
    return Place(model, None, contexts, Path(out), model.file, overwrite)


def _contexts(data: str) -> Any:
    from toolkit.data import load

    return load(data).y


def read(folder: Path, which: str) -> tuple[Ready, ...]:
    """The tableaus in a run folder that were fitted to these weights; none, with a warning, to others."""
    path = folder / NAME
    if not path.is_file():
        return ()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        weights, ready = raw["weights"], tableaus.from_json(json.dumps(raw["tableaus"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected what toolkit fit writes, got {str(error)[:120]}; fit again or remove it"
        ) from None
    if weights != digest(folder, which):
        warnings.warn(
            f"{path}: fitted to other weights than these, so left out; run toolkit fit again",
            stacklevel=2,
        )
        return ()
    return ready


def digest(folder: Path, which: str) -> str:
    """SHA-256 of a run's newest arrays, ema or network, and their names: the same whoever reads them."""
    from toolkit import checkpoints

    total = hashlib.sha256()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a broken checkpoint was told when the run was opened
        arrays = checkpoints.latest(folder).part(which)
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def table(found: "Sequence[Fitted]") -> str:
    """What was found, a line for each number of calls: errors beside the best classical ones."""
    lines = ["calls  evaluations  error    labels   classical at no more calls"]
    for one in found:
        rivals = ", ".join(
            f"{name} {steps}: {error:.2g}" for name, steps, error in one.classical[:4]
        )
        labels = "-" if one.labels is None else f"{one.labels:.2g}"
        lines.append(
            f"{one.ready.steps:>5}  {one.evaluations:>11}  {one.error:<7.2g}  {labels:<7}  {rivals}"
        )
        lines += [
            f"{'':>5}  guidance {weight:g}, off the fitted: {mine:.2g}; best classical {theirs:.2g}"
            for weight, mine, theirs in one.off
        ]
    return "\n".join(lines)
