"""How a trained network becomes one self-describing .onnx: graph, spec, parity report, seal.

    from export import export_torch
    export_torch(my_module, spec, "mine.onnx")      # my_module(x, time, condition)
    export_mlx(my_module, spec, "mine.onnx")        # the same of an mlx.nn.Module
    export_torch(my_module, spec, "mine-likelihood.onnx", form="likelihood")  # for runtimes.likelihood

Names are looked up on first use, so importing this package loads neither torch, mlx nor onnx.
"""

from typing import TYPE_CHECKING, Any

from .verify import ParityError, Report

if TYPE_CHECKING:
    from .mlx_export import export_mlx
    from .mlx_model import MlxModel
    from .torch_export import export_torch
    from .torch_model import TorchModel

__all__ = ["MlxModel", "ParityError", "Report", "TorchModel", "export_mlx", "export_torch"]


def __getattr__(name: str) -> Any:
    if name == "export_mlx":
        from .mlx_export import export_mlx

        return export_mlx
    if name == "export_torch":
        from .torch_export import export_torch

        return export_torch
    if name == "MlxModel":
        from .mlx_model import MlxModel

        return MlxModel
    if name == "TorchModel":
        from .torch_model import TorchModel

        return TorchModel
    raise AttributeError(f"module 'export' has no attribute {name!r}")
