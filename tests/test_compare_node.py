"""Node among the backends: its own noise and loop end where Python's do, and what goes wrong is said."""

import math
from dataclasses import replace

import numpy as np
import pytest

from export import density_graphs
from tests.javascript import EXAMPLES, needs_node, write_sampler
from toolkit.backends import find
from toolkit.cli import main
from toolkit.compare import compare, timed
from toolkit.node import find_node

needs_node()

RUNS = {
    "overlapping": {"solver": "ancestral", "steps": 6, "seed": 2**40},  # noise on the way
    "labelled": {"solver": "heun", "steps": 5, "label": [0, "none", 3], "guidance": 2.0},
    "images": {"solver": "dpmpp_2m", "grid": [0.0, 0.3, 0.5, 1.0], "label": 1, "guidance": 1.0},
    "moves": {"solver": "unipc2", "steps": 4, "guidance": 1.5},  # contexts drawn at random
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> [path of the network, path of its sampler]."""
    folder = tmp_path_factory.mktemp("compare-node")
    found = {}
    for name in RUNS:
        network = density_graphs.write(folder / f"{name}.onnx", name, "cosine", "v")
        found[name] = [network, write_sampler(folder / f"{name}-sampler.onnx", network)]
    return found


@pytest.mark.parametrize("name", RUNS)
def test_node_shows_the_states_of_python(files, name):
    backends, _ = find(None, files[name])
    more, absent = find_node(EXAMPLES, backends)
    assert [one.name for one in more] == [f"{files[name][1]} in node"]
    assert [one.name for one in absent] == [f"{files[name][0]} in node"]
    result = compare([backends[0], *more], 3, request=RUNS[name])
    row = result.rows[1]
    assert row.steps == tuple(range(len(result.plan.times)))
    assert row.worst < 1e-5
    assert np.ptp(row.sample) > 0.1


def test_a_process_is_measured_but_no_rate(files):
    backends, _ = find(None, files["labelled"])
    more, _ = find_node(EXAMPLES, backends)
    result = timed(compare([backends[1], *more], 3, request={"steps": 3}), rounds=1)
    _, node = result.rows
    assert node.rate is None
    assert node.cold > 0
    assert node.megabytes > 20  # Node alone


def test_what_node_says_is_the_failure(files, tmp_path):
    """A file that is changed after Python has opened it, and a script that is not there."""
    backends, _ = find(None, files["overlapping"])
    path = tmp_path / "sampler.onnx"
    path.write_bytes(files["overlapping"][1].read_bytes())
    (changed,), _ = find_node(EXAMPLES, find(None, [path])[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    lost = replace(changed, name="lost", opening=str(tmp_path / "nothing.mjs"))
    result = compare([backends[0], changed, lost], 2, request={"steps": 3})
    assert [row.worst for row in result.outside] == [math.inf, math.inf]
    says = [row.failure for row in result.outside]
    assert "truncated or changed" in says[0]
    assert "Cannot find module" in says[1]
    assert [len(text.splitlines()) for text in says] == [1, 1]


def test_the_command_takes_node(files, capfd):
    args = [str(path) for path in files["overlapping"]]
    with pytest.raises(SystemExit) as stop:
        main(["compare", *args, "--no-speed", "--steps", "3", "--node", str(EXAMPLES)])
    out, _ = capfd.readouterr()
    assert not stop.value.code
    assert "all 3 within" in out
