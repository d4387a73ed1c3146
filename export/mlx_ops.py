"""Program -> ONNX nodes: a function per primitive, found by name in `PRIMITIVES`.

To add one, write f(sheet, step, *values) -> value in the file it belongs to and its line in that
file's table: step.arguments are MLX's, step.outputs has the sizes, and `elementwise`, `form` and
`along` of mlx_values write the nodes.
"""

from collections import Counter

import onnx
from onnx import helper

from .mlx_arithmetic import ARITHMETIC, Write
from .mlx_layers import LAYERS
from .mlx_layouts import LAYOUTS
from .mlx_products import PRODUCTS
from .mlx_sums import SUMS
from .mlx_trace import Program, Step, unfit
from .mlx_values import TYPES, Value, constant, elementwise, expanded, form, made, number
from .sheet import Sheet
from .sizes import Factor, Size

RANDOM = ("RandomBits",)


def translate(program: Program, names: list[str], output: str) -> onnx.ModelProto:
    """The program as an ONNX model whose inputs and output have these names."""
    sheet = Sheet(batch_of=names[0])
    values = {
        name: made(shape, TYPES[dtype], public)
        for (name, shape, dtype), public in zip(program.inputs, names, strict=True)
    }
    for name, number_or_array in program.constants.items():
        values[name] = (
            _moving(sheet, number_or_array)
            if isinstance(number_or_array, Factor)
            else constant(sheet, number_or_array)
        )
    uses = Counter(name for step in program.steps for name in step.inputs)
    for step in program.steps:
        made_here = _write(sheet, step, [values[name] for name in step.inputs])
        for (name, _, _), value in zip(step.outputs, made_here, strict=True):
            values[name] = value
            if value.node is not None and uses[name] != 1:
                value.node = None
    name, shape, dtype = program.output
    last = form(sheet, expanded(sheet, values[name]))
    inputs = [
        _described(public, program.inputs[k][1], TYPES[program.inputs[k][2]])
        for k, public in enumerate(names)
    ]
    return sheet.model(inputs, _described(output, shape, TYPES[dtype]), last)


def _write(sheet: Sheet, step: Step, values: list[Value]) -> list[Value]:
    """The outputs of one step."""
    for _, shape, dtype in step.outputs:
        if dtype not in TYPES:
            raise ValueError(unfit(dtype, shape, step.name))
    if step.name not in PRIMITIVES:
        raise ValueError(_unknown(step, values))
    out = PRIMITIVES[step.name](sheet, step, *values)
    return out if isinstance(out, list) else [out]


def _unknown(step: Step, values: list[Value]) -> str:
    """The words for a primitive that is not in the table."""
    if step.name in RANDOM:
        return (
            "module: expected a forward without random draws, got one; draw outside, or evaluate the "
            "weights first: mx.eval(module.parameters())"
        )
    taken = ", ".join(_words(value.shape) for value in values)
    given = ", ".join(_words(shape) for _, shape, _ in step.outputs)
    return (
        f"module: expected primitives of export/mlx_ops.py, got {step.name} {taken} -> {given}; "
        f'write the network without it, or add "{step.name}": function to PRIMITIVES'
    )


def _words(shape: tuple[int | Size, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


def _moving(sheet: Sheet, factor: Factor) -> Value:
    """scale * batch ** power, computed from the input's shape."""
    batch = sheet.one("Shape", sheet.batch_of, start=0, end=1)
    name = sheet.one("Squeeze", sheet.one("Cast", batch, to=onnx.TensorProto.FLOAT))
    value = made((), onnx.TensorProto.FLOAT, name)
    power = elementwise(sheet, "Pow", value, number(sheet, factor.power))
    return elementwise(sheet, "Mul", power, number(sheet, factor.scale))


def _described(name: str, shape: tuple[int | Size, ...], kind: int) -> onnx.ValueInfoProto:
    sizes = ["batch" if isinstance(size, Size) else size for size in shape]
    return helper.make_tensor_value_info(name, kind, sizes)


PRIMITIVES: dict[str, Write] = {**ARITHMETIC, **LAYERS, **LAYOUTS, **PRODUCTS, **SUMS}
