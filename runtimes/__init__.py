"""How a trained field becomes samples, with numpy and onnxruntime alone.

model = runtimes.load("digits.onnx")
images = runtimes.sample(model, 64, label=7, steps=20, seed=0)
for state in runtimes.stream(model, 64, label=7, steps=20): ...
"""

from .controls import decode, edit, inpaint, interpolate, invert
from .modelfile import ModelError
from .sample import plan, sample, stream
from .session import Model, load
from .spec import Condition, Sampler, Spec

__all__ = [
    "Condition",
    "Model",
    "ModelError",
    "Sampler",
    "Spec",
    "decode",
    "edit",
    "inpaint",
    "interpolate",
    "invert",
    "load",
    "plan",
    "sample",
    "stream",
]
