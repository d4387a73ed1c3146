"""The README tells the truth: its tree is the disk, its commands run, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme_blocks import README, blocks, command_of_tests, commands
from toolkit.cli import VERBS, main

ROOT = README.parent
TEXT = README.read_text()
FEW = ["--steps", "40"]  # training steps: enough to run, not to be good


def test_tree_lists_every_file_and_no_other():
    tree = next(
        block
        for block in re.findall(r"^```\n(.*?)^```$", TEXT, re.M | re.S)
        if "runtimes/" in block
    )
    listed, folder = set(), ""
    for line in tree.splitlines():
        name = line.split()[0]
        folder = name if not line.startswith(" ") else folder
        listed.add(name if not line.startswith(" ") else folder + name)
    for room in ("runtimes", "export", "toolkit"):
        files = {path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py")}
        files = {str(path) for path in files if not path.name.startswith("__")}
        folders = {str(Path(file).parent) + "/" for file in files} - {f"{room}/"}
        covered = {
            file for file in files if any(file.startswith(f) for f in folders if f in listed)
        }
        assert files - covered == {
            name for name in listed if name.startswith(room) and name.endswith(".py")
        }
        assert folders == {
            name
            for name in listed
            if name.startswith(room + "/") and name != room + "/" and name.endswith("/")
        }


def test_every_verb_is_shown():
    assert {shlex.split(line)[1] for line in commands() if line.startswith("toolkit ")} >= set(
        VERBS
    ) - {"quickstart"}
    assert "toolkit quickstart" in TEXT
    assert command_of_tests() == 'pip install -e ".[dev]" -c constraints.txt && pytest'


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the quickstart ran with a few steps, as the first command would."""
    folder = tmp_path_factory.mktemp("readme")
    subprocess.run(
        [sys.executable, "-m", "toolkit", "quickstart", *FEW],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


def test_quickstart_leaves_model_and_picture(workplace):
    assert (workplace / "quickstart" / "samples.png").stat().st_size > 1000
    assert (workplace / "quickstart" / "digits.onnx").exists()


def test_toolkit_commands_run_in_order(workplace, monkeypatch):
    """The lines after the two installs, as written, but for the number of training steps."""
    import numpy as np

    monkeypatch.chdir(workplace)
    rng = np.random.default_rng(0)
    np.savez(
        "mydata.npz", x=rng.normal(size=(600, 5, 3)).astype(np.float32), y=rng.integers(0, 4, 600)
    )
    lines = [line for line in commands() if line.startswith("toolkit ")]
    assert len(lines) >= 6
    for line in lines:
        args = shlex.split(line)[1:]
        with pytest.raises(SystemExit) as stop:
            main(args + FEW if args[0] == "train" else args)
        # 40 steps draw no good digits: `evaluate` says so by its exit code
        assert (stop.value.code or 0) in ((0, 1) if args[0] == "evaluate" else (0,)), line


def test_python_blocks_run(workplace, monkeypatch):
    monkeypatch.chdir(workplace / "quickstart")
    run = [block for block in blocks("python") if "import" in block]
    assert len(run) >= 2
    for block in run:
        exec(compile(block, "README.md", "exec"), {})
