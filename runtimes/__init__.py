"""How a trained field becomes samples, with numpy and onnxruntime alone.

model = runtimes.load("digits.onnx")
images = runtimes.sample(model, 64, label=7, steps=20, seed=0)
for state in runtimes.stream(model, 64, label=7, steps=20): ...
images = runtimes.integrate(model, 64, label=7, rtol=1e-4, atol=1e-4).x
nats = runtimes.likelihood(runtimes.load("digits-likelihood.onnx"), images, label=7).log_density
"""

from .controls import decode, edit, inpaint, interpolate, invert
from .integrate import Result, integrate
from .likelihood import Likelihood, likelihood
from .modelfile import ModelError
from .sample import plan, sample, stream
from .session import Model, load
from .spec import Condition, Sampler, Spec

__all__ = [
    "Condition",
    "Likelihood",
    "Model",
    "ModelError",
    "Result",
    "Sampler",
    "Spec",
    "decode",
    "edit",
    "inpaint",
    "integrate",
    "interpolate",
    "invert",
    "likelihood",
    "load",
    "plan",
    "sample",
    "stream",
]
