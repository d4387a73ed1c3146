"""Which execution providers take how much of a graph: ONNX Runtime's own usability checker, as a table.

A provider takes the nodes it knows, in as few connected pieces as it can; at each border the values go
from one device to the other and back. One piece that holds every node is what to aim for. The checker
knows operators, axes and free sizes; it runs nothing, so it says where, not how fast or how exactly.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from runtimes.modelfile import ModelError
from runtimes.session import onnxruntime
from runtimes.widen import widened


@dataclass(frozen=True)
class Placement:
    """What one provider takes: `taken` of `nodes` nodes in so many partitions.

    refused: the operators that it does not know. unsized: nodes left because a size is free.
    """

    provider: str
    partitions: int
    taken: int
    nodes: int
    refused: tuple[str, ...]
    unsized: int

    @property
    def whole(self) -> bool:
        """Whether it takes every node in one piece."""
        return self.partitions == 1 and self.taken == self.nodes


def placement(content: bytes) -> list[Placement]:
    """What each of `PROVIDERS` takes of a model, once ONNX Runtime has simplified it as for any provider."""
    model = onnx.shape_inference.infer_shapes(simplified(content), data_prop=True)
    return [_placed(name, check(model)) for name, check in PROVIDERS.items()]


def simplified(content: bytes) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimisations, which come before any provider is asked.

    Constants are not folded, as in `session`, and as there weights of few bits are float32 by then.
    Raises ModelError where it does not open.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simplified.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                widened(content),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"model: expected a graph ONNX Runtime opens, got: {reason}; export it again"
            ) from None
        return onnx.load_model_from_string(path.read_bytes())


def _placed(name: str, found: Any) -> Placement:
    refused = sorted(operator.removeprefix("ai.onnx:") for operator in found.unsupported_ops)
    return Placement(
        provider=name,
        partitions=found.num_partitions,
        taken=found.num_supported_nodes,
        nodes=found.num_nodes,
        refused=tuple(refused),
        unsized=found.nodes_unsupported_due_to_dynamic_input,
    )


def _coreml(table: str, model: onnx.ModelProto) -> Any:
    from onnxruntime.tools.mobile_helpers import usability_checker

    return usability_checker.check_coreml_partitions(model, True, table)


def _nnapi(model: onnx.ModelProto) -> Any:
    from onnxruntime.tools.mobile_helpers import usability_checker

    return usability_checker.check_nnapi_partitions(model, True)


PROVIDERS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "coreml": partial(_coreml, "coreml_supported_mlprogram_ops.md"),
    "coreml-nn": partial(_coreml, "coreml_supported_neuralnetwork_ops.md"),
    "nnapi": _nnapi,
}
