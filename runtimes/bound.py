"""A graph of fixed sizes between arrays that stay where they are in a device's memory.

What CUDA recorded of the first run it launches again as it was, addresses included: every later run has to
read and write those same arrays. So there is one set of them for the life of a session, and one caller at
a time.
"""

import threading
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .session import Floats, Model, onnxruntime

Feeds = dict[str, NDArray[Any]]


class Bound:
    """The inputs of a session and its output `sample`, like the input x, bound once."""

    def __init__(self, session: Any, device: str, feeds: Feeds) -> None:
        on_device = onnxruntime().OrtValue.ortvalue_from_numpy
        self.lock, self.binding = threading.Lock(), session.io_binding()
        self.inputs = {name: on_device(array, device) for name, array in feeds.items()}
        self.sample = on_device(np.zeros_like(feeds["x"]), device)
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_ortvalue_output("sample", self.sample)

    def __call__(self, model: Model, feeds: Feeds, calls: int) -> Floats:
        """The output for other numbers of the same sizes, as a copy in the host's memory."""
        with self.lock:
            found: Floats = model.watched(
                lambda options: self._ran(model.session, feeds, options), len(feeds["x"]), calls
            )
        return found

    def _ran(self, session: Any, feeds: Feeds, options: Any) -> Floats:
        for name, array in feeds.items():
            self.inputs[name].update_inplace(array)
        session.run_with_iobinding(self.binding, options)
        return np.array(self.sample.numpy())


def run(model: Model, device: str, feeds: Feeds, calls: int) -> Floats:
    """sample of a whole run of so many network calls; the first one binds. feeds: all that it takes.

    Raises ModelError for what fails in it, and where the device has no room for the arrays.
    """
    with LOCK:
        bound = BOUND.get(model.session)
        if bound is None:
            bound = BOUND[model.session] = model.watched(
                lambda _: Bound(model.session, device, feeds), len(feeds["x"])
            )
    return bound(model, feeds, calls)


LOCK = threading.Lock()
BOUND: WeakKeyDictionary[Any, Bound] = WeakKeyDictionary()  # of every open session that has run
