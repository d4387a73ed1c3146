"""A torch module that is sampled by the same call as a model file.

runtimes.sample(TorchModel(spec, module), 64, label=7, steps=20)
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel

from runtimes.session import Floats
from runtimes.spec import Spec


@dataclass(frozen=True)
class TorchModel:
    """module(x, time[, condition]) seen as prediction = network(x, t, condition) on numpy arrays."""

    spec: Spec
    module: torch.nn.Module

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """One call without gradients, on the device the module's parameters are on."""
        with torch.no_grad():  # entered per call: held open it would leak into the caller
            return _array(
                self.module(*self._tensors(x, np.full(len(x), t, np.float32), condition))
            )

    def product(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None, probe: Floats
    ) -> tuple[Floats, Floats]:
        """(prediction, J probe), J = d prediction / d x of each row, by torch.func.jvp."""
        first, along, *rest = self._tensors(x, probe, np.full(len(x), t, np.float32), condition)
        # the fused attention has no forward derivative; torch warns of its own use of torch.jit once
        with warnings.catch_warnings(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore", DeprecationWarning)
            both = torch.func.jvp(lambda x: self.module(x, *rest), (first,), (along,))
        return _array(both[0]), _array(both[1])

    def _tensors(self, *arrays: NDArray[Any] | None) -> list[torch.Tensor]:
        """The arrays there are, on the device of the module's parameters."""
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        return [
            torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)
            for array in arrays
            if array is not None
        ]


def _array(tensor: torch.Tensor) -> Floats:
    return np.asarray(tensor.float().cpu().numpy())
