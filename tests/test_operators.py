"""Every ONNX operator is either allowed or left out for a reason; and nothing else is named."""

import onnx

from runtimes.operators import OPERATORS

LEFT_OUT = {
    "control flow": "If Loop Scan SequenceMap",
    "random draws": "Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike",
    "sequences and optionals": "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt "
    "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence",
    "texts": "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer",
    "image files and boxes": "ImageDecoder MaxRoiPool NonMaxSuppression",
    "losses": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
}


def test_every_standard_operator_is_decided_on():
    left_out = {name for names in LEFT_OUT.values() for name in names.split()}
    schemas = onnx.defs.get_all_schemas_with_history()
    known = {schema.name for schema in schemas if schema.domain == ""}
    assert left_out & OPERATORS == set()
    assert left_out | OPERATORS == known


def test_no_allowed_operator_takes_a_graph():
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in OPERATORS:
            kinds = {attribute.type for attribute in schema.attributes.values()}
            types = onnx.defs.OpSchema.AttrType
            assert not kinds & {types.GRAPH, types.GRAPHS, types.SPARSE_TENSORS}
