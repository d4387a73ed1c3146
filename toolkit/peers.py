"""Who is measured: every file on ONNX Runtime, and the same network in other engines, where there are any.

A peer runs the loop of `runtimes` on the host: what differs is the network's call alone.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes.modelfile import PRECISION_KEY
from runtimes.sample import Sampleable
from runtimes.spec import Spec


@dataclass(frozen=True)
class Contender:
    """A network that can be sampled, opened with one number of threads."""

    name: str
    engine: str
    precision: str
    provider: str
    threads: int
    model: Sampleable


def open_files(files: Sequence[str | Path], provider: str, threads: int) -> list[Contender]:
    """Every file on ONNX Runtime."""
    found = []
    for path in files:
        model = runtimes.load(path, provider=provider, threads=threads)
        words = (Path(path).stem, "onnxruntime", precision_of(model), provider)
        found.append(Contender(*words, threads, model))
    return found


def open_peers(
    files: Sequence[Contender], run: Path | None, threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """Every peer there is, and the reason for each there is not."""
    found, absent = [], {}
    for name, (module, opened) in PEERS.items():
        there = importlib.util.find_spec(module) is not None
        peer = opened(files, run, threads) if there else "not installed"
        if isinstance(peer, str):
            absent[name] = peer
        else:
            found.append(Contender(name, name, "fp32", "cpu", threads, peer))
    return found, absent


def precision_of(model: Any) -> str:
    """fp32, or what the file says."""
    from export.fidelity import from_json

    text = model.file.metadata.get(PRECISION_KEY)
    return "fp32" if text is None else from_json(text).precision


def _torch(found: Sequence[Contender], run: Path | None, threads: int) -> Sampleable | str:
    """The run's own network in torch, eager."""
    if run is None:
        return "no run folder given: --run FOLDER"
    import torch

    from export.torch_model import TorchModel
    from toolkit.train_torch import load

    spec = found[0].model.spec
    module, own = load(run)
    if (own.shape, own.condition) != (spec.shape, spec.condition):
        raise ValueError(
            f"run: expected the run of {found[0].name}, which makes samples of shape {spec.shape}, got "
            f"{own.shape} in {run}; give the folder that it was exported from"
        )
    torch.set_num_threads(threads)
    return TorchModel(spec, module)


@dataclass(frozen=True)
class OpenVino:
    """A network compiled by OpenVINO, behind the face of a model."""

    spec: Spec
    compiled: Any

    def network(self, x: Any, t: Any, condition: Any = None) -> Any:
        """One call."""
        feeds = {"x": x, "time": np.full(len(x), t, np.float32)}
        if condition is not None:
            feeds[self.spec.condition.kind] = condition
        return self.compiled(feeds)["prediction"]


def _openvino(found: Sequence[Contender], run: Path | None, threads: int) -> Sampleable | str:
    """The first file of the form network in float32."""
    plain = [
        c.model
        for c in found
        if getattr(c.model, "form", "") == "network" and c.precision == "fp32"
    ]
    if not plain:
        return "no file of the form network in fp32 given"
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    return OpenVino(
        plain[0].spec, core.compile_model(core.read_model(plain[0].file.content), "CPU", config)
    )


# name -> its module and what opens it, or says why not
PEERS: dict[
    str, tuple[str, Callable[[Sequence[Contender], Path | None, int], Sampleable | str]]
] = {
    "torch eager": ("torch", _torch),
    "openvino": ("openvino", _openvino),
}
