"""toolkit.js in Node: the noise to the bit, the same samples, the same refusals in the same words."""

import base64
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import mlx.nn as nn
import numpy as np
import onnx
import pytest

import runtimes
from export import density_graphs, export_mlx
from runtimes import modelfile
from runtimes.noise import LARGEST_SEED, noise
from runtimes.operators import OPERATORS
from runtimes.spec import VERSION, Condition, Sampler, Spec, from_json
from runtimes.tableau import MOST_ROWS, check_dense
from tests.conftest import faces_bytes
from tests.faults import models
from tests.javascript import (
    EXAMPLES,
    ask,
    floats,
    needs_node,
    packed,
    run_node,
    sampler_bytes,
    write_sampler,
)
from toolkit.web import site

needs_node()

NETWORKS = {  # of known densities: what a client may meet
    "overlapping": {},
    "labelled": {"label": [0, 3, "none"], "guidance": 2.0},
    "images": {"label": 1, "guidance": 1.0},
    "moves": {"context": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6), "guidance": 1.5},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> (path of the network, path of its sampler)."""
    folder = tmp_path_factory.mktemp("node")
    found = {}
    for name in NETWORKS:
        network = density_graphs.write(folder / f"{name}.onnx", name, "cosine", "v")
        found[name] = network, write_sampler(folder / f"{name}-sampler.onnx", network)
    return found


def faces_proto(content=None):
    return onnx.ModelProto.FromString(content or faces_bytes())


def faces_spec():
    file = modelfile.check(Path("faces.onnx"), faces_bytes())
    return from_json(file.metadata[modelfile.SPEC_KEY])


@pytest.fixture(scope="module")
def faces_sampler(tmp_path_factory):
    path = tmp_path_factory.mktemp("node") / "faces-sampler.onnx"
    path.write_bytes(sampler_bytes(faces_proto(), faces_spec()))
    return path


def test_noise_has_the_bits_of_python():
    wanted = [
        ([0, 1, 2], 8, 0), ([42], 1, 0), ([2**40 + 7, LARGEST_SEED], 7, 3), ([5], 147, 2**32 - 1),
        ([2**32, 2**31, 2**32 - 1], 64, 2**31),
    ]  # fmt: skip
    golden = {"do": "noise", "seeds": list(range(16)), "size": 4096, "draw": 1}
    tasks = [{"do": "noise", "seeds": s, "size": n, "draw": d} for s, n, d in wanted]
    first, *others = ask(golden, *tasks)
    digest = hashlib.sha256(floats(first, -1).tobytes()).hexdigest()
    assert digest == "10a85b7d05c31f2a20cb88435097c61632bc60a3b9d08632d7c13bea58d46ef6"
    for (seeds, size, draw), text in zip(wanted, others, strict=True):
        expected = noise(np.array(seeds, np.int64), (size,), draw)
        assert np.array_equal(floats(text, len(seeds), size), expected)


def test_random123_known_answers():
    tasks = [
        {"do": "threefry", "key": key, "counter": counter}
        for key, counter in (
            ([0, 0], [0, 0]),
            ([0x13198A2E, 0x03707344], [0x243F6A88, 0x85A308D3 - 2**32]),  # as int32
        )
    ]
    assert ask(*tasks) == [[0x6B200159, 0x99BA4EFE], [0xC4923A9C, 0x483DF7A0]]


def test_sha256_by_hand():
    """Which a page not served securely needs, for there the browser has none."""
    contents = [bytes(range(256)) * 5, *(b"a" * n for n in (0, 1, 55, 56, 63, 64, 65, 119, 120))]
    texts = [base64.b64encode(content).decode() for content in contents]
    tasks = [{"do": "digest", "content": {"bytes": text}} for text in texts]
    assert ask(*tasks) == [hashlib.sha256(content).hexdigest() for content in contents]


def test_lists_that_stand_twice_are_the_same():
    """What JavaScript has to know too: the operators, the keys of a spec, the limits."""
    (known,) = ask({"do": "constants"})
    assert set(known["operators"]) == OPERATORS
    for word, kind in (("spec", Spec), ("condition", Condition), ("sampler", Sampler)):
        assert list(known["keys"][word]) == [slot.name for slot in dataclasses.fields(kind)]
    assert (known["version"], known["seed"]) == (VERSION, LARGEST_SEED)
    assert tuple(known["forms"]) == modelfile.FORMS


def for_json(request):
    words = dict(request)
    if "context" in words:
        words["context"] = {"floats": packed(words["context"])["floats"]}
    return words


@pytest.mark.parametrize("ort", ["node", "wasm"])
def test_samples_equal_pythons(ort, files):
    """Every tableau of every file, whole and in pieces: within 1e-5 of the host's loop over the network."""
    n, seed = 3, 2**33 + 5
    runs, tasks = [], []
    for name, request in NETWORKS.items():
        network, path = files[name]
        model = runtimes.load(network, provider="cpu")
        for one in runtimes.load(path, provider="cpu").tableaus:
            run = {**request, "solver": one.solver, "steps": one.steps, "seed": seed}
            for preview in (False, True) if one.steps == 5 else (False,):
                runs.append((model, run))
                asked = {**for_json(run), "preview": preview}
                tasks.append(
                    {"do": "sample", "ort": ort, "path": str(path), "n": n, "request": asked}
                )
    for (model, run), got in zip(runs, ask(*tasks), strict=True):
        assert "ok" in got, (got, run)
        expected = runtimes.sample(model, n, **run)
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(floats(got["ok"], *expected.shape) - expected).max() <= 1e-5 * scale, run
    assert {run["solver"] for _, run in runs} >= {"euler", "heun", "dpmpp_2m", "ancestral"}


@pytest.mark.parametrize("ort", ["node", "wasm"])
def test_attention_of_the_profile_fast(ort, tmp_path):
    """Opset 23, as Python runs it."""
    spec = Spec("points", (5, 8), sampler=Sampler("heun", 2))
    module = nn.MultiHeadAttention(8, 2)
    path = tmp_path / "fast.onnx"
    export_mlx(
        lambda x, time: module(x, x, x) + time[:, None, None], spec, path,
        form="sampler", profile="fast",
    )  # fmt: skip
    model = runtimes.load(path, provider="cpu")
    assert model.file.operators["Attention"] == 1
    request = {"solver": "heun", "steps": 2, "seed": 3}
    (got,) = ask({"do": "sample", "ort": ort, "path": str(path), "n": 2, "request": request})
    expected = runtimes.sample(model, 2, **request)
    assert np.abs(floats(got["ok"], *expected.shape) - expected).max() <= 1e-5


@pytest.mark.parametrize("ort", ["node", "wasm"])
def test_a_newer_opset_says_to_update(ort, faces_sampler, tmp_path):
    newer = models.onnx.ModelProto.FromString(faces_sampler.read_bytes())
    del newer.metadata_props[-1]
    newer.opset_import[0].version = 999
    (tmp_path / "newer.onnx").write_bytes(modelfile.seal(newer.SerializeToString()))
    (got,) = ask({"do": "open", "ort": ort, "path": str(tmp_path / "newer.onnx")})
    assert got["error"].endswith("; made by a newer version; update onnxruntime")


def test_states_of_a_run_and_how_it_ends(files):
    network, path = files["images"]
    model = runtimes.load(network, provider="cpu")
    request = {"label": 2, "solver": "euler", "steps": 10, "seed": 4, "guidance": 3.0}
    task = {"do": "stream", "ort": "node", "path": str(path), "n": 2, "request": request}
    whole, left, stopped = ask(
        task, {**task, "stop": {"leave": 3}}, {**task, "stop": {"abort": 3}}
    )
    states = [noise(np.array([4, 5]), model.spec.shape, 0), *runtimes.stream(model, 2, **request)]
    assert [state["step"] for state in whole["ok"]] == list(range(11))
    assert [state["t"] for state in whole["ok"]] == pytest.approx([k / 10 for k in range(11)])
    for state, expected in zip(whole["ok"], states, strict=True):
        assert np.abs(floats(state["x"], *expected.shape) - expected).max() <= 1e-5
    assert len(left["ok"]) == 4
    assert stopped["kind"] == "AbortError"


def test_a_tableau_of_ones_own(files):
    """The one-row identity is the bare network."""
    network, path = files["labelled"]
    model = runtimes.load(network, provider="cpu")
    row = {"data": packed([1, 0.25, 0, 0, 1, 0]), "shape": [1, 2, 3], "sigma": 0.5}
    request = {"label": 1, "tableau": row, "seed": 8}
    (got,) = ask({"do": "sample", "ort": "node", "path": str(path), "n": 4, "request": request})
    x = noise(np.arange(8, 12), (2,), 0) * np.float32(0.5)
    expected = model.network(x, 0.25, np.full(4, 1))
    assert np.abs(floats(got["ok"], 4, 2) - expected).max() <= 1e-6


NAN, INFINITY = math.nan, math.inf
BAD = {  # n, request
    "labelled": [
        (2, {}), (2, {"label": 99}), (2, {"label": -1}), (2, {"label": 1.5}), (2, {"label": "owl"}),
        (2, {"label": []}),
        (2, {"label": [0, 4]}), (2, {"label": True}), (2, {"label": "it's"}), (2, {"label": "a\nb\u200b"}),
        (0, {"label": 0}), (1.5, {"label": 0}), ("3", {"label": 0}), (10**8, {"label": 0}),
        (2, {"label": 0, "seed": -1}), (2, {"label": 0, "seed": 1.5}), (2, {"label": 0, "seed": "7"}),
        (1, {"label": 0, "seed": 2**53}), (2, {"label": 0, "seed": 2**53 - 1}),
        (2, {"label": 0, "seed": NAN}), (2, {"label": 0, "guidance": 10001}),
        (2, {"label": 0, "guidance": NAN}), (2, {"label": 0, "guidance": "2"}),
        (2, {"label": 0, "guidance": -INFINITY}),
    ],
    "overlapping": [(2, {"label": 0}), (2, {"guidance": 2}), (10_000_000, {"seed": 2**53 - 5})],
    "images": [(3_000_000, {"label": 0})],
    "moves": [(2, {}), (2, {"label": 1})],
}  # fmt: skip


def spelled(request):
    """A request that JSON can hold."""
    odd = [
        key for key, value in request.items() if value in (INFINITY, -INFINITY) or value != value
    ]
    return {**request, **{key: {"number": str(request[key])} for key in odd}}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_in_the_words_of_python(name, files):
    network, path = files[name]
    model = runtimes.load(network, provider="cpu")
    tasks = [
        {"do": "stream", "ort": "node", "path": str(path), "n": n, "request": spelled(request)}
        for n, request in BAD[name]
    ]
    for (n, request), got in zip(BAD[name], ask(*tasks), strict=True):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - compared word by word
            runtimes.stream(model, n, **request)
        assert got["error"] == str(error.value), (n, request)


def test_requests_the_file_has_no_tableau_for(faces_sampler):
    bad = [{"solver": "huen"}, {"solver": "euler", "steps": 7}]
    tasks = [
        {"do": "sample", "ort": "node", "path": str(faces_sampler), "n": 1, "request": {"label": 0, **one}}
        for one in bad
    ]  # fmt: skip
    solver, steps = (one["error"] for one in ask(*tasks))
    assert solver == (
        "solver: expected one of heun, euler, dpmpp_2m, ancestral, got 'huen'; did you mean 'heun'?"
    )
    assert steps.startswith("steps: expected one of 5, 10, 20 for 'euler' in this file, got 7;")


def tableau(rows, width, columns, **changes):
    array = np.zeros((rows, width, columns), np.float32)
    for (*at,), value in changes.get("at", {}).items():
        array[tuple(at)] = value
    return array


TABLEAUS = {
    "width": tableau(2, 2, 5),
    "no slots": tableau(2, 1, 3),
    "many slots": tableau(1, 18, 19),
    "flat": np.zeros((2, 6), np.float32),
    "rows": tableau(MOST_ROWS + 1, 2, 3),
    "nan": tableau(2, 2, 3, at={(1, 1, 0): NAN}),
    "infinity": tableau(2, 2, 3, at={(0, 0, 1): INFINITY}),
    "half guided": tableau(2, 2, 3, at={(0, 0, 2): 0.5}),
    "half draw": tableau(2, 2, 4, at={(0, 0, 3): 1.5}),
    "time": tableau(2, 2, 3, at={(1, 0, 1): -1.0}),
}


def test_bad_tableaus_in_the_words_of_python(faces_sampler):
    tasks = [
        {"do": "sample", "ort": "node", "path": str(faces_sampler), "n": 1,
         "request": {"label": 0, "tableau": {"data": packed(array), "shape": array.shape}}}
        for array in TABLEAUS.values()
    ]  # fmt: skip
    for (name, array), got in zip(TABLEAUS.items(), ask(*tasks), strict=True):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - compared word by word
            check_dense(array)
        assert got["error"] == str(error.value), name


def words_of_python(path):
    """What opening the file says before onnxruntime is asked, or the digest of a good one."""
    try:
        return site.read(path).digest
    except runtimes.ModelError as error:
        return str(error)


def test_broken_files_in_the_words_of_python(faces_sampler, tmp_path, monkeypatch):
    """Every fault of the battery around a sampler, random bits, random changes of structure."""
    monkeypatch.setattr(models, "GOOD", faces_sampler.read_bytes())
    contents = {name: make() for name, make in models.MODELS.items() if name != "name"}
    contents |= {f"flip {k}": content for k, content in enumerate(models.flips(40))}
    contents |= {f"mutant {k}": content for k, content in enumerate(models.mutants(60))}
    contents["second scan"] = models.changed(lambda m: m.graph.node.append(m.graph.node[-3]))
    contents["inner if"] = models.changed(inner_if)
    contents["no tableaus"] = models.changed(lambda m: setattr(m.metadata_props[2], "value", "{}"))
    contents["no tableau"] = models.changed(lambda m: setattr(m.metadata_props[2], "value", "[7]"))
    contents["few ends"] = models.changed(few_ends)
    tasks = []
    for k, content in enumerate(contents.values()):
        (tmp_path / str(k)).write_bytes(content)
        tasks.append({"do": "check", "path": str(tmp_path / str(k))})
    answers = dict(zip(contents, ask(*tasks), strict=True))
    refused = 0
    for name, task in zip(contents, tasks, strict=True):
        got = answers[name].get("ok") or answers[name]["error"]
        expected = words_of_python(task["path"])
        if "expected JSON, got" in expected or "got another text" in expected:  # parsers differ
            got, expected = (text.split(" (")[0] for text in (got, expected))
        assert got == expected, name
        refused += "ok" not in answers[name]
    assert refused > 90
    assert "ok" in answers["good"]


def inner_if(model):
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    inside = next(a.g for a in scan.attribute if a.name == "body")
    inside.node.append(models.node("If", ["c"], ["y"], then_branch=models.body()))


def few_ends(model):
    entry = model.metadata_props[2]
    listed = json.loads(entry.value)
    listed[0]["ends"].pop()
    entry.value = json.dumps(listed)


def test_other_forms_and_graphs_that_are_not_what_the_spec_says(faces, faces_sampler, tmp_path):
    monster = models.onnx.ModelProto.FromString(faces_sampler.read_bytes())
    del monster.metadata_props[-1]
    (entry,) = (e for e in monster.metadata_props if e.key == modelfile.SPEC_KEY)
    entry.value = entry.value.replace('"shape":[8,8,1]', '"shape":[8,9,1]')
    (tmp_path / "shape.onnx").write_bytes(modelfile.seal(monster.SerializeToString()))
    form, shape = ask(
        {"do": "open", "ort": "node", "path": str(faces)},
        {"do": "open", "ort": "node", "path": str(tmp_path / "shape.onnx")},
    )
    assert form["error"] == (
        f"{faces}: expected a file of the form 'sampler', got 'network'; "
        "write one with toolkit export --form sampler"
    )
    with pytest.raises(runtimes.ModelError) as error:
        runtimes.load(tmp_path / "shape.onnx")
    assert shape["error"] == str(error.value)


def test_states_that_are_not_finite(tmp_path):
    pictures = np.full((4, 8, 8, 1), np.nan, np.float32)
    path = tmp_path / "nan.onnx"
    path.write_bytes(sampler_bytes(faces_proto(faces_bytes(pictures=pictures)), faces_spec()))
    task = {"do": "sample", "ort": "node", "path": str(path), "n": 3}
    (got,) = ask({**task, "request": {"label": 0, "preview": True}})
    with pytest.raises(FloatingPointError) as error:
        runtimes.sample(runtimes.load(path), 3, label=0, progress=lambda *_: None)
    assert got["error"] == str(error.value)


def test_the_examples_draw_what_python_draws(faces_sampler, faces, tmp_path):
    """Fifteen lines with onnxruntime-node alone, and the same with toolkit.js."""
    x = runtimes.sample(runtimes.load(faces), 1, label=2, seed=11)
    wanted = np.clip((x[0, :, :, 0] + 1) * 127.5, 0, 255)
    run_node(EXAMPLES / "sample.mjs", faces_sampler, 2, 11, tmp_path / "a.pgm")
    head, pixels = (tmp_path / "a.pgm").read_bytes().split(b" 255\n")
    assert head == b"P5\n8 8"
    assert np.abs(np.frombuffer(pixels, np.uint8).reshape(8, 8) - wanted).max() <= 1
    (tmp_path / "seeded.onnx").write_bytes(sampler_bytes(faces_proto(), faces_spec(), "seeded"))
    lines = run_node(EXAMPLES / "digit.mjs", tmp_path / "seeded.onnx", 2, 11).splitlines()
    shades = np.array([[" .:-=+*#%@".index(c) for c in line[::2]] for line in lines])
    assert shades.shape == (8, 8)
    assert np.abs(shades * 25.6 + 12.8 - wanted).max() <= 13.8
    text = (EXAMPLES / "digit.mjs").read_text()
    assert len([line for line in text.splitlines() if line and not line.startswith("//")]) <= 15
