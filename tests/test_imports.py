"""runtimes needs numpy and onnxruntime and nothing else: no framework, no onnx, no network."""

import subprocess
import sys
from pathlib import Path

import pytest

from .problems import write_onnx

ROOT = Path(__file__).parent.parent
BLOCKED = "torch mlx onnx click scipy matplotlib PIL toolkit export"

BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED.split()!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
def audit(event, args):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(audit)
"""


def run(script, *arguments):
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK + script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.stderr, out.returncode) == ("", 0)
    return out.stdout


@pytest.mark.parametrize("labelled", [False, True])
def test_load_and_sample_with_everything_else_blocked(tmp_path, labelled):
    path = write_onnx(tmp_path / "a.onnx", labelled=labelled)
    script = """
import runtimes
model = runtimes.load(sys.argv[1])
label = 3 if model.spec.condition.kind == "label" else None
guidance = 2.0 if label else None
for solver in ("heun", "ancestral"):
    x = runtimes.sample(model, 4, label=label, guidance=guidance, solver=solver, steps=5)
assert x.shape == (4, 2)
extra = {name.split(".")[0] for name in sys.modules} & set(sys.argv[2:])
assert not extra, extra
foreign = {name.split(".")[0] for name, module in sys.modules.items()
           if "site-packages" in (getattr(module, "__file__", None) or "")}
print(*sorted(foreign))
"""
    loaded = set(run(script, path, *BLOCKED.split()).split())
    assert loaded <= {"numpy", "onnxruntime"} | STARTED


# what the interpreter itself loads from this environment before any line of ours (.pth files)
STARTED = set(
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; print(*{n.split('.')[0] for n, m in sys.modules.items() "
            "if 'site-packages' in (getattr(m, '__file__', None) or '')})",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)


def test_importing_does_no_work():
    """Nothing printed, no onnxruntime yet, no seed touched, no warning filter changed."""
    script = """
import numpy, random, warnings
before = (numpy.random.get_state()[1].tolist(), random.getstate(), list(warnings.filters))
import runtimes
after = (numpy.random.get_state()[1].tolist(), random.getstate(), list(warnings.filters))
assert before == after
assert "onnxruntime" not in sys.modules
"""
    assert run(script) == ""


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "runtimes").glob("*.py")))
def test_each_file_names_what_it_imports(name):
    """By text: only the standard library, numpy, onnxruntime and this folder."""
    import ast

    tree = ast.parse((ROOT / "runtimes" / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops = {node.module.split(".")[0]} if node.level == 0 else set()
        else:
            continue
        assert tops <= {*sys.stdlib_module_names, "numpy", "onnxruntime"}
