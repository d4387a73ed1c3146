"""Node, npm's packages and Chromium, where they are: what tests of the clients run in, or skip without."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtimes
from export import forms, sampler
from runtimes import modelfile, tableaus
from runtimes.spec import to_json

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples" / "node"
PACKAGES = EXAMPLES / "node_modules"
ORT_WEB = PACKAGES / "onnxruntime-web" / "dist"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def needs_node():
    """Skip the calling module unless Node and the packages of examples/node are here."""
    if shutil.which("node") is None:
        pytest.skip("node: expected Node 20 or newer, got none", allow_module_level=True)
    if not (ORT_WEB.is_dir() and (PACKAGES / "onnxruntime-node").is_dir()):
        pytest.skip(
            "node: expected examples/node/node_modules; npm ci there", allow_module_level=True
        )


def needs_chromium():
    """Skip the calling module unless a browser can be driven."""
    needs_node()
    if CHROMIUM is None or not (PACKAGES / "playwright-core").is_dir():
        pytest.skip(
            "chromium: expected one and playwright-core, got none", allow_module_level=True
        )


def run_node(program, *args, text=None, cwd=None):
    """The output of a program in Node; its errors are the test's."""
    done = subprocess.run(
        ["node", str(program), *map(str, args)],
        input=text,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **({"CHROMIUM": CHROMIUM} if CHROMIUM else {})},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def ask(*tasks):
    """The answers of tests/javascript.mjs to these tasks, from one process."""
    return json.loads(run_node(TESTS / "javascript.mjs", text=json.dumps(tasks)))


def floats(text, *shape):
    """The float32 numbers in a base64 text."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def packed(array):
    """What `javascript.mjs` makes a Float32Array of."""
    return {"floats": base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()}


def write_sampler(path, network):
    """The file of form sampler around the network of another file; its path."""
    model = runtimes.load(network, provider="cpu")
    proto = onnx.ModelProto.FromString(model.file.content)
    forms.write(
        proto, model.spec, path, form="sampler", reference=model, framework="onnxruntime",
        overwrite=True, tolerance=1e-4,
    )  # fmt: skip
    return path


def sampler_bytes(network, spec, form="sampler"):
    """Sealed bytes around a network's graph, not compared with anything."""
    proto = {"sampler": sampler.sampler, "seeded": sampler.seeded}[form](network, spec)
    notes = {
        modelfile.SPEC_KEY: to_json(spec),
        modelfile.FORM_KEY: form,
        modelfile.TABLEAUS_KEY: tableaus.to_json(tableaus.kept(spec)),
    }
    for key, text in notes.items():
        proto.metadata_props.add(key=key, value=text)
    return modelfile.seal(proto.SerializeToString(deterministic=True))
