"""What must not stand in the code that opens files: no pickle in any clothes, nothing evaluated."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for name in ("runtimes", "export", "toolkit", "examples")
    for path in (ROOT / name).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {
    *("eval", "exec", "compile", "torch.load", "torch.save", "torch.jit.load", "torch.hub.load"),
    *(
        "mx.load",
        "mlx.core.load",
        "mx.save",
        "mx.savez",
        "mx.save_safetensors",
    ),  # in place: no rename
    *("torch.package.PackageImporter", "mx.import_function", "onnx.load", "onnx.load_model"),
}
OBJECTS = ("_object", "_object_list")  # torch.distributed pickles what these carry


def dotted(node):
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def faults(text):
    """Every forbidden import or call in a program."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            names = [name] if name in CALLS else []
            if name.startswith(("torch.distributed.", "dist.")) and name.endswith(OBJECTS):
                names.append("allow_pickle")
            if name in ("np.load", "numpy.load") and len(node.args) > 2:
                names.append("allow_pickle")  # the third one, without its name
            if name.endswith("import_module") or name == "__import__":
                names += [a.value for a in node.args if isinstance(a, ast.Constant)]
            for word in node.keywords:
                is_false = isinstance(word.value, ast.Constant) and word.value.value is False
                if word.arg == "allow_pickle" and not is_false:
                    names.append("allow_pickle")
                if word.arg == "weights_only" and is_false:
                    names.append("weights_only=False")
            names = [name for name in names if name.split(".")[0] in MODULES or name in CALLS
                     or name in ("allow_pickle", "weights_only=False")]  # fmt: skip
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for name in names if name.split(".")[0] in MODULES or name in CALLS]
        else:
            names = []
        found += names
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_pickle_and_nothing_evaluated(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize("text", [
    "import pickle", "from joblib import load", "torch.load(p)", "from torch import load", "mx.load(p)",
    "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "eval('1')", "exec(text)",
    "np.load(p, None, True)", "dist.broadcast_object_list(x)", "mx.savez(p)", "torch.jit.load(p)",
    "importlib.import_module('pickle')", "__import__('marshal')", "torch.save(x, p)", "import shelve as s",
])  # fmt: skip
def test_the_scan_sees(text):
    assert faults(text)
