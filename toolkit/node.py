"""Node as a backend: a sampler file run by toolkit.js, its noise and its loop too, in a process of its own.

node examples/node/states.mjs digits-sampler.onnx request.json states.f32
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from runtimes.modelfile import ModelError
from runtimes.sample import Plan, State
from runtimes.session import Floats, Model
from runtimes.tableau import dense

from .backends import Absent, Backend

SCRIPT, PACKAGE = "states.mjs", "node_modules/onnxruntime-node/package.json"


@dataclass(frozen=True)
class Node(Backend):
    """model: the same file, opened here. opening: the script that runs it there."""

    resident: ClassVar[bool] = False

    def states(self, todo: Plan, pace: float = 0.0) -> Iterator[State]:
        """All states of one process, when it has ended."""
        found, _ = self._run(todo)
        for step, x in enumerate(found):
            yield State(x, step, len(todo.times) - 1, todo.times[step])

    def peak(self, todo: Plan, request: Mapping[str, Any]) -> float:
        """Megabytes of memory of a process that draws the first sample."""
        condition = None if todo.condition is None else todo.condition[:1]
        return self._run(replace(todo, seeds=todo.seeds[:1], condition=condition))[1]

    def _run(self, todo: Plan) -> tuple[Floats, float]:
        """(states, peak memory). Raises ModelError with what Node says."""
        path = self.model.file.path if isinstance(self.model, Model) else ""
        with TemporaryDirectory() as folder:
            asked, out = Path(folder) / "request.json", Path(folder) / "states.f32"
            asked.write_text(json.dumps(request_of(todo)), encoding="utf-8")
            done = subprocess.run(
                ["node", self.opening, str(path), str(asked), str(out)],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["nothing"]
                says = next((line for line in lines if "Error" in line), lines[-1])
                raise ModelError(f"{path}: expected Node to run it, got: {says}; npm ci again")
            states = np.fromfile(out, "<f4").astype(np.float32)
        shape = (len(todo.times), len(todo.seeds), *todo.model.spec.shape)
        return states.reshape(shape), float(done.stdout.split()[-1])


def request_of(todo: Plan) -> dict[str, Any]:
    """A run in the words of `stream` in toolkit.js."""
    table, condition = dense(todo.tableau), todo.condition
    ends = todo.tableau.ends
    tableau = {"data": table.reshape(-1).tolist(), "shape": table.shape, "ends": ends}
    tableau |= {"times": todo.times, "sigma": float(todo.scales(todo.times[0]).sigma)}
    request: dict[str, Any] = {
        "n": len(todo.seeds),
        "seed": int(todo.seeds[0]),
        "tableau": tableau,
    }
    if condition is None:
        return request
    request["guidance"] = todo.weight
    if condition.dtype != np.int64:
        return request | {"context": condition.reshape(-1).tolist()}
    none = todo.model.spec.condition.classes
    return request | {"label": ["none" if k == none else k for k in condition.tolist()]}


def find_node(
    folder: str | Path | None, backends: Sequence[Backend]
) -> tuple[list[Backend], list[Absent]]:
    """Node beside each sampler file that ONNX Runtime has opened on the CPU; folder: examples/node."""
    why = _missing(folder)
    if why or folder is None:
        return [], [Absent("node", why)]
    package = json.loads((Path(folder) / PACKAGE).read_text(encoding="utf-8"))
    version = f"onnxruntime-node {package['version']}"
    found, absent = [], []
    for backend in backends:
        model = backend.model
        if not isinstance(model, Model) or model.provider != "cpu":
            continue
        name = f"{model.file.path} in node"
        if model.form == "sampler":
            found.append(Node(name, version, model, str(Path(folder) / SCRIPT)))
        else:
            absent.append(
                Absent(name, f"toolkit.js runs the form sampler, this is {model.form!r}")
            )
    return found, absent or ([] if found else [Absent("node", "no sampler file was given")])


def _missing(folder: str | Path | None) -> str:
    """Why Node cannot be asked, or nothing."""
    if folder is None:
        return "not asked for; give --node examples/node"
    if shutil.which("node") is None:
        return "no node on the PATH"
    lacks = [name for name in (SCRIPT, PACKAGE) if not (Path(folder) / name).is_file()]
    return f"{folder} has no {lacks[0]}; npm ci --ignore-scripts there" if lacks else ""
