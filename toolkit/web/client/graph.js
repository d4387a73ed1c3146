/** The graph inside a model file, walked before onnxruntime sees it: runtimes/graph.py, word for word. */

import { fields, layout, numbersOf, once, textOf, decode } from "./protobuf.js";
import { ModelError, repr, tuple } from "./words.js";

const MOST_NODES = 20_000;
export const MOST_FIELDS = 1_000_000;
const MOST_AXES = 32;
const LONGEST_AXIS = 2 ** 31 - 1;

// onnx.proto: field number, kind, name; a name that ends in * may stand many times.
export const GRAPH =
  layout(`1 bytes node*,2 bytes name,5 bytes initializer*,10 bytes doc_string,11 bytes input*,
  12 bytes output*,13 bytes value_info*,14 bytes quantization_annotation*,15 bytes sparse_initializer*,
  16 bytes metadata_props*`);
const VALUE = layout("1 bytes name,2 bytes type,3 bytes doc_string,4 bytes metadata_props*");
const NODE = layout(`1 bytes input*,2 bytes output*,3 bytes name,4 bytes op_type,5 bytes attribute*,
  6 bytes doc_string,7 bytes domain,8 bytes overload,9 bytes metadata_props*`);
const ATTRIBUTE = layout(`1 bytes name,2 float f,3 int i,4 bytes s,5 bytes t,6 bytes g*,7 float floats*,
  7 bytes floats*,8 int ints*,8 bytes ints*,9 bytes strings*,10 bytes tensors*,11 bytes graphs*,
  13 bytes doc_string,20 int type,21 bytes ref_attr_name*,22 bytes sparse_tensor*,23 bytes sparse_tensors*`);
export const TENSOR =
  layout(`1 int dims*,1 bytes dims*,2 int data_type,4 float float_data*,4 bytes float_data*,
  5 int int32_data*,5 bytes int32_data*,7 int int64_data*,7 bytes int64_data*,8 bytes name,9 bytes raw_data,
  10 double double_data*,10 bytes double_data*,11 int uint64_data*,11 bytes uint64_data*,12 bytes doc_string,
  13 bytes external_data*,14 int data_location,16 bytes metadata_props*`);
const LABELS = ["label", "network.label", "condition.label"]; // wherever a sampler may look them up
const NESTED = ["g*", "graphs*", "sparse_tensor*", "sparse_tensors*", "ref_attr_name*"];
const DATA = ["raw_data", "float_data*", "int32_data*", "int64_data*", "double_data*", "uint64_data*"];

// element type -> its word, its bits, and the field that may hold it instead of raw_data
const TYPES = {
  1: ["float32", 32, "float_data*"],
  2: ["uint8", 8, "int32_data*"],
  3: ["int8", 8, "int32_data*"],
  4: ["uint16", 16, "int32_data*"],
  5: ["int16", 16, "int32_data*"],
  6: ["int32", 32, "int32_data*"],
  7: ["int64", 64, "int64_data*"],
  9: ["bool", 8, "int32_data*"],
  10: ["float16", 16, "int32_data*"],
  11: ["float64", 64, "double_data*"],
  12: ["uint32", 32, "uint64_data*"],
  13: ["uint64", 64, "uint64_data*"],
  16: ["bfloat16", 16, "int32_data*"],
  17: ["float8", 8, "int32_data*"],
  18: ["float8", 8, "int32_data*"],
  19: ["float8", 8, "int32_data*"],
  20: ["float8", 8, "int32_data*"],
  21: ["uint4", 4, ""],
  22: ["int4", 4, ""],
};

/** The operators a network may hold: runtimes/operators.py, word for word. */
export const OPERATORS = new Set(
  `
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
BitwiseXor Cast CastLike Ceil Clip Cos Cosh Div Equal Erf Exp Floor Greater GreaterOrEqual Identity
IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sinh
Sqrt Sub Sum Tan Tanh Where Xor
Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid
Softmax Softplus Softsign SwiGLU Swish ThresholdedRelu
Attention AveragePool BatchNormalization CausalConvWithState Conv ConvInteger ConvTranspose DeformConv
Einsum GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization
LRN LSTM LayerNormalization LinearAttention LpNormalization LpPool MatMul MatMulInteger MaxPool
MaxUnpool MeanVarianceNormalization RMSNormalization RNN RotaryEmbedding
ArgMax ArgMin CumProd CumSum Det ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK
CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten
Gather GatherElements GatherND NonZero OneHot Pad Range Reshape Resize ReverseSequence Scatter
ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose
Trilu Unique Unsqueeze Upsample
AffineGrid BlackmanWindow DFT GridSample HammingWindow HannWindow MelWeightMatrix RoiAlign STFT
DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul QuantizeLinear`
    .trim()
    .split(/\s+/),
);

export function walkGraph(message, budget, into, top = false) {
  const found = fields(message, GRAPH, budget);
  if (found["sparse_initializer*"]) {
    throw new ModelError("expected dense weights, got a sparse tensor; export again");
  }
  const nodes = found["node*"] ?? [];
  if (nodes.length + into.nodes > MOST_NODES) {
    throw new ModelError(`expected at most ${MOST_NODES} nodes, got more; export a smaller one`);
  }
  for (const tensor of found["initializer*"] ?? []) {
    const [name, size] = checkTensor(tensor, budget);
    if (name in into.sizes) {
      throw new ModelError(`weight ${repr(name)}: expected it once, got it twice; export again`);
    }
    into.sizes[name] = size;
  }
  if (top) into.defaults = inputsOf(found).filter((name) => name in into.sizes);
  for (const node of nodes) walkNode(node, budget, into);
  once(found);
}

const inputsOf = (graph) => (graph["input*"] ?? []).map((value) => nameOf(value, VALUE));

export const nameOf = (message, layout) => textOf(fields(message, layout, { left: Infinity }), "name");

function walkNode(message, budget, into) {
  const found = fields(message, NODE, budget);
  once(found);
  const operator = textOf(found, "op_type");
  const domain = textOf(found, "domain");
  const block = into.blocks.includes(operator);
  if (!["", "ai.onnx"].includes(domain) || !(block || OPERATORS.has(operator))) {
    const name = domain ? `${domain}.${operator}` : operator;
    throw new ModelError(
      "expected standard operators without control flow or random draws, " +
        `got ${repr(name.slice(0, 80))}; export the network alone`,
    );
  }
  const scanned = [];
  for (const attribute of found["attribute*"] ?? []) {
    const parts = fields(attribute, ATTRIBUTE, budget);
    if (operator === "Scan") scanned.push([textOf(parts, "name"), parts.i?.[0] ?? 0]);
    if (block && parts["g*"]) {
      const later = into.blocks;
      into.blocks = []; // flat again
      for (const graph of parts["g*"]) walkGraph(graph, budget, into);
      into.blocks = later;
    } else if (NESTED.some((word) => word in parts)) {
      throw new ModelError(
        `expected plain nodes, got one with a nested graph or sparse tensor (${operator}); ` +
          "a network has no control flow",
      );
    }
    for (const tensor of [...(parts.t ?? []), ...(parts["tensors*"] ?? [])]) checkTensor(tensor, budget);
    once(parts);
  }
  const inputs = (found["input*"] ?? []).map(decode);
  if (operator === "Scan") rowsOfTheTableau(inputs, scanned, into);
  else if (operator === "Slice" && into.blocks.length && inputs.length) {
    into.slices.set(decode(found["output*"][0]), inputs[0]);
  }
  into.blocks = into.blocks.filter((word) => word !== operator);
  if (operator === "Gather" && inputs.length === 2 && LABELS.includes(inputs[1])) into.tables.push(inputs[0]);
  into.nodes += 1;
}

/** A Scan goes as often as the tableau has rows: see runtimes/graph.py. */
function rowsOfTheTableau(inputs, attributes, into) {
  const names = attributes.map(([name]) => name).sort();
  const known = names.length === 2 && names[0] === "body" && names[1] === "num_scan_inputs";
  let start = inputs[1] ?? "";
  for (let cut = 0; cut < into.slices.size; cut++) start = into.slices.get(start) ?? start;
  const count = Object.fromEntries(attributes).num_scan_inputs;
  if (!known || Number(count) !== inputs.length - 1 || start !== "tableau") {
    throw new ModelError(
      "expected a Scan over the rows of the tableau, got another one; export the sampler again",
    );
  }
}

/** [name, size] of weights that are here, whole, and written down once. */
function checkTensor(message, budget) {
  const found = fields(message, TENSOR, budget);
  if (found["external_data*"] || (found.data_location ?? []).some(Boolean)) {
    throw new ModelError(
      "expected all weights inside, got a tensor stored in another file; export with the weights inside",
    );
  }
  once(found);
  const name = textOf(found, "name");
  const kind = found.data_type?.[0] ?? 0;
  const size = numbersOf(found["dims*"] ?? [], MOST_AXES);
  if (!(kind in TYPES) || size.some((axis) => axis > LONGEST_AXIS)) {
    const what = kind in TYPES ? `axes ${tuple(size)} (negative or too long)` : `type ${kind}`;
    throw new ModelError(`weight ${repr(name)}: expected numbers, got ${what}; export again`);
  }
  const [word, bits, typedSlot] = TYPES[kind];
  const present = DATA.filter((slot) => slot in found);
  if (present.length > 1 || (present.length && !["raw_data", typedSlot].includes(present[0]))) {
    const slots = present.map((slot) => slot.replace("*", "")).join(" and ");
    throw new ModelError(`weight ${repr(name)}: expected ${word} data once, got ${slots}; export again`);
  }
  const count = size.reduce((all, axis) => all * BigInt(axis), 1n);
  let [expected, got, unit] = [count, 0, "numbers"];
  if (present[0] === typedSlot && typedSlot) {
    got = countOf(typedSlot, found[typedSlot]);
  } else {
    [expected, unit] = [(count * BigInt(bits) + 7n) / 8n, "bytes"];
    got = (found.raw_data ?? []).reduce((all, raw) => all + raw.length, 0);
  }
  if (BigInt(got) !== expected) {
    throw new ModelError(
      `weight ${repr(name)}: expected ${expected} ${unit} for ${word} ${tuple(size)}, got ${got}; export again`,
    );
  }
  return [name, size];
}

/** How many numbers a typed data field holds, packed or one by one. */
function countOf(slot, values) {
  const width = { "float_data*": 4, "double_data*": 8 }[slot];
  const each = (value) => {
    if (width) return value.length % width ? -1 : value.length / width;
    return value instanceof Uint8Array ? value.reduce((all, byte) => all + (byte < 128), 0) : 1;
  };
  return values.reduce((all, value) => all + each(value), 0);
}
