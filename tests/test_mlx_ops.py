"""Every primitive of MLX in small functions, against MLX itself, at batches nobody traced."""

import mlx.core as mx
import numpy as np
import onnx
import onnxruntime
import pytest

from export.mlx_ops import PRIMITIVES, translate
from export.mlx_trace import program
from runtimes.operators import OPERATORS

from .mlx_programs import PROGRAMS

BATCHES = (1, 2, 5, 17)


def rows(batch, shape, seed=0):
    return np.random.default_rng([seed, batch]).standard_normal((batch, *shape)).astype(np.float32)


def traced(function, shape):
    mx.eval(function(mx.array(rows(3, shape))))  # evaluates the weights
    return program(function, lambda batch: [rows(batch, shape)])


def opened(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def worst(function, shape, model, batches=BATCHES):
    """The largest difference, relative to the largest number; sizes must be equal."""
    session, errors = opened(model), []
    for batch in batches:
        x = rows(batch, shape, seed=1)
        theirs = np.array(function(mx.array(x)).astype(mx.float32))
        (mine,) = session.run(None, {"x": x})
        assert mine.shape == theirs.shape
        errors.append(np.abs(mine - theirs).max() / max(1.0, np.abs(theirs).max()))
    return max(errors)


@pytest.mark.parametrize("name", PROGRAMS)
def test_function_computes_what_mlx_computes(name):
    shape, make = PROGRAMS[name]
    function = make()
    model = translate(traced(function, shape), ["x"], "y")
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert worst(function, shape, model) < 2e-5


def test_every_primitive_is_in_a_program():
    seen = {step.name for shape, make in PROGRAMS.values() for step in traced(make(), shape).steps}
    assert PRIMITIVES.keys() - seen == set()
