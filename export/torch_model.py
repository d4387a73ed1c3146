"""A torch module that is sampled by the same call as a model file.

runtimes.sample(TorchModel(spec, module), 64, label=7, steps=20)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        arrays = [x, np.full(len(x), t, np.float32)] + ([] if condition is None else [condition])
        with torch.no_grad():  # entered per call: held open it would leak into the caller
            out = self.module(
                *(
                    torch.from_numpy(np.require(a, requirements=["C", "W"])).to(device)
                    for a in arrays
                )
            )
        return np.asarray(out.float().cpu().numpy())
