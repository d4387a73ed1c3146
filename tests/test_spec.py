import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.grids import GRIDS
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS
from runtimes.spec import Condition, Sampler, Spec, from_json, to_json

# json.dumps with sorted keys and no spaces, written out by hand from the dataclasses
GOLDEN = (
    '{"condition":{"classes":3,"kind":"label","names":["cat","dog","\\u00e9l"],"shape":[]},'
    '"name":"faces","prediction":"v","sampler":{"grid":"karras","guidance":1.5,"solver":"ab2",'
    '"steps":4},"schedule":"vp","shape":[8,8,1],"training":{"data":"drawn"},'
    '"value_range":[-1.0,1.0],"version":1}'
)
FACES = Spec(
    "faces",
    (8, 8, 1),
    schedule="vp",
    prediction="v",
    condition=Condition("label", classes=3, names=("cat", "dog", "él")),
    sampler=Sampler("ab2", 4, grid="karras", guidance=1.5),
    value_range=(-1.0, 1.0),
    training={"data": "drawn"},
)


def test_golden_json():
    assert to_json(FACES) == GOLDEN
    assert from_json(GOLDEN) == FACES


numbers = st.floats(allow_nan=False, allow_infinity=False)
facts = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
sizes = st.integers(1, 2**31)


@st.composite
def conditions(draw):
    kind = draw(st.sampled_from(["none", "label", "context"]))
    if kind == "label":
        names = draw(st.lists(st.text(), max_size=5))
        return Condition(kind, classes=len(names) or draw(sizes), names=tuple(names))
    shape = tuple(draw(st.lists(sizes, min_size=1, max_size=2))) if kind == "context" else ()
    return Condition(kind, shape=shape)


specs = st.builds(
    Spec,
    name=st.text(),
    shape=st.lists(sizes, min_size=1, max_size=4).map(tuple),
    schedule=st.sampled_from([*SCHEDULES, "polynomial(3)", "discrete(0.1, 2e-1)"]),
    prediction=st.sampled_from(list(PREDICTIONS)),
    condition=conditions(),
    sampler=st.builds(
        Sampler,
        solver=st.sampled_from(list(SOLVERS)),
        steps=st.integers(1, 10_000),
        grid=st.sampled_from([*GRIDS, "karras(5)", "beta(0.5,0.5)"]),
        guidance=st.floats(-1e4, 1e4),
    ),
    value_range=st.none() | st.tuples(numbers, numbers).filter(lambda pair: pair[0] < pair[1]),
    training=st.dictionaries(st.text(), facts, max_size=3),
)


@given(spec=specs)
def test_round_trip(spec):
    text = to_json(spec)
    assert "\n" not in text
    assert from_json(text) == spec
    assert to_json(from_json(text)) == text


def test_only_name_shape_and_version_are_needed():
    assert from_json('{"name":"a","shape":[2],"version":1}') == Spec("a", (2,))


def changed(**changes):
    """GOLDEN with values replaced; a dotted key goes one level down, `...` removes."""
    raw = json.loads(GOLDEN)
    for path, value in changes.items():
        *parents, key = path.split("__")
        at = raw
        for parent in parents:
            at = at[parent]
        at.pop(key, None)
        if value is not ...:
            at[key] = value
    return json.dumps(raw)


BAD = [
    (changed(version=2), r"spec\.version: expected 1, got 2: made by a newer version; update"),
    (changed(version=999), "made by a newer version"),
    (changed(version=0), r"spec\.version: expected 1, got 0: made by an unknown version"),
    (changed(version=...), r"spec\.version: expected a value, got none"),
    (changed(version="1"), r"spec\.version: expected a whole number, got '1'"),
    (changed(version=True), r"spec\.version: expected a whole number"),
    (changed(version=1.0), r"spec\.version: expected a whole number"),
    (changed(name=...), r"spec\.name: expected a value, got none; add the key"),
    (changed(shape=...), r"spec\.shape: expected a value, got none"),
    (changed(shpe=[2]), "spec key: .*'shpe'; did you mean 'shape'"),
    (changed(sampler__step=3), r"spec\.sampler key: .*'step'; did you mean 'steps'"),
    (changed(condition__colour=3), r"spec\.condition key: .*'colour'"),
    (changed(name=3), r"spec\.name: expected a text, got 3"),
    (changed(name=None), r"spec\.name: expected a text"),
    (changed(shape=8), r"spec\.shape: expected a list, got 8"),
    (changed(shape=[]), "shape: expected sizes of at least 1"),
    (changed(shape=[8, 0]), "shape: expected sizes of at least 1"),
    (changed(shape=[8, -1]), "shape: expected sizes of at least 1"),
    (changed(shape=[8, "8"]), r"spec\.shape\[1\]: expected a whole number, got '8'"),
    (changed(shape=[8, True]), r"spec\.shape\[1\]: expected a whole number"),
    (changed(shape=[8.0]), r"spec\.shape\[0\]: expected a whole number"),
    (changed(shape={"0": 8}), r"spec\.shape: expected a list"),
    (changed(value_range=[1]), r"spec\.value_range: expected a list"),
    (changed(value_range=[1, 2, 3]), r"spec\.value_range: expected a list"),
    (changed(value_range=["a", 1]), r"spec\.value_range\[0\]: expected a finite number"),
    (changed(schedule="vpp"), "schedule: .*'vpp'; did you mean 'vp'"),
    (changed(prediction="velocty"), "prediction: .*did you mean 'velocity'"),
    (changed(sampler__solver="huen"), "solver: .*did you mean 'heun'"),
    (changed(sampler__grid="karas"), "grid: .*did you mean 'karras'"),
    (changed(sampler=[]), r"spec\.sampler: expected an object"),
    (changed(sampler=None), r"spec\.sampler: expected an object"),
    (changed(sampler__steps=4.5), r"spec\.sampler\.steps: expected a whole number"),
    (changed(sampler__guidance=10**400), r"spec\.sampler\.guidance: expected a finite number"),
    (changed(condition__kind="labels"), "condition: .*did you mean 'label'"),
    (changed(condition__classes=0), r"condition\.classes: expected a count above 0"),
    (changed(condition__kind="none"), r"condition\.classes: expected"),
    (changed(condition__names=["a"]), r"condition\.names: expected 3 names, got 1"),
    (changed(condition__names="cat"), r"spec\.condition\.names: expected a list"),
    (changed(condition__shape=[3]), r"condition\.shape: expected"),
    (changed(condition={"kind": "context"}), r"condition\.shape: expected"),
    (changed(condition={"kind": "context", "shape": [1, 2, 3]}), r"condition\.shape: expected"),
    (changed(condition={"kind": "context", "shape": [0]}), r"condition\.shape: expected"),
    (changed(training=[1]), r"spec\.training: expected"),
    (GOLDEN.replace('"version":1', '"version":1,"version":1'), "a key stands twice"),
    (GOLDEN.replace('"steps":4', '"steps":4,"steps":5'), "a key stands twice"),
    (GOLDEN.replace("1.5", "NaN"), "NaN is not a number in JSON"),
    (GOLDEN.replace("1.5", "-Infinity"), "-Infinity is not a number in JSON"),
    (GOLDEN.replace("1.5", "1e999"), "1e999 is not a number in JSON"),
    (GOLDEN.replace('"drawn"', "NaN"), "NaN is not a number in JSON"),
    (GOLDEN[:-1], "spec: expected JSON"),
    (GOLDEN + "}", "spec: expected JSON"),
    ("", "spec: expected JSON"),
    ("not JSON", "spec: expected JSON, got 'not JSON'"),
    ("[]", "spec: expected an object"),
    ("null", "spec: expected an object"),
    ("[" * 100_000, "spec: expected JSON"),
    ('{"version":' + "9" * 5000 + "}", "spec: expected JSON"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_each_fault_has_its_own_message(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


@given(text=st.text() | facts.map(json.dumps))
def test_any_text_is_a_spec_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        from_json(text)


@given(
    key=st.sampled_from(sorted(json.loads(GOLDEN))),
    inner=st.none() | st.sampled_from(["kind", "classes", "names", "shape", "steps", "guidance"]),
    value=facts,
)
def test_any_value_anywhere_is_a_spec_or_a_value_error(key, inner, value):
    raw = json.loads(GOLDEN)
    if inner is not None and isinstance(raw[key], dict):
        raw[key][inner] = value
    else:
        raw[key] = value
    try:
        spec = from_json(json.dumps(raw))
    except ValueError:
        return
    assert from_json(to_json(spec)) == spec


def test_what_is_not_json_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        to_json(Spec("a", (2,), training={"loss": float("nan")}))


def test_specs_are_frozen():
    with pytest.raises(AttributeError):
        FACES.name = "other"
