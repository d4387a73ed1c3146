"""The operators a network may hold: those of ONNX that compute numbers from numbers, and end.

Not here, so refused: control flow (If, Loop, Scan, SequenceMap), random draws (RandomNormal, Dropout,
...: noise is an input), texts, sequences, optionals and image files, and the losses of training. To
allow another one, add its name; `tests/test_operators.py` holds the list of those left out.
"""

_ARITHMETIC = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
BitwiseXor Cast CastLike Ceil Clip Cos Cosh Div Equal Erf Exp Floor Greater GreaterOrEqual Identity
IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sinh
Sqrt Sub Sum Tan Tanh Where Xor
"""
_ACTIVATIONS = """
Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid
Softmax Softplus Softsign SwiGLU Swish ThresholdedRelu
"""
_LAYERS = """
Attention AveragePool BatchNormalization CausalConvWithState Conv ConvInteger ConvTranspose DeformConv
Einsum GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization
LRN LSTM LayerNormalization LinearAttention LpNormalization LpPool MatMul MatMulInteger MaxPool
MaxUnpool MeanVarianceNormalization RMSNormalization RNN RotaryEmbedding
"""
_REDUCTIONS = """
ArgMax ArgMin CumProd CumSum Det ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK
"""
_SHAPES = """
CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten
Gather GatherElements GatherND NonZero OneHot Pad Range Reshape Resize ReverseSequence Scatter
ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose
Trilu Unique Unsqueeze Upsample
"""
_SIGNALS = """
AffineGrid BlackmanWindow DFT GridSample HammingWindow HannWindow MelWeightMatrix RoiAlign STFT
"""
_QUANTIZED = """
DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul QuantizeLinear
"""
OPERATORS = frozenset(
    " ".join(
        (_ARITHMETIC, _ACTIVATIONS, _LAYERS, _REDUCTIONS, _SHAPES, _SIGNALS, _QUANTIZED)
    ).split()
)
