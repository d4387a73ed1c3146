"""A model file whose network OpenVINO runs, sampled by the same call as the file itself.

It takes the form network alone: a Scan of its may use no value from outside of the body, as the
condition is and what a sampler works out before its loop.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from runtimes.session import Floats, Model
from runtimes.spec import Spec


@dataclass(frozen=True)
class OpenVinoModel:
    """The compiled network seen as prediction = network(x, t, condition) on numpy arrays."""

    spec: Spec
    compiled: openvino.CompiledModel

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """One call."""
        feeds = {"x": x, "time": np.full(len(x), t, np.float32)}
        if condition is not None:
            feeds[self.spec.condition.kind] = condition
        return self.compiled(feeds)["prediction"]


def compiled(model: Model, threads: int) -> OpenVinoModel:
    """The network of a file of the form network, in float32 on the CPU."""
    core = openvino.Core()
    config = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    network = core.read_model(model.file.content)
    return OpenVinoModel(model.spec, core.compile_model(network, "CPU", config))
