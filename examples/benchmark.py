"""Speed, side by side in one run: ours on ONNX Runtime against torch eager, compiled and diffusers.

    python examples/benchmark.py                  # the table, and benchmark.json
    python examples/benchmark.py --no-compile     # without torch.compile's minutes of compiling

Each round times every contender once, in random order; a figure is the median over rounds with its
quartiles, a ratio the median of the ratios within rounds. Weights are random: speed does not care.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.timing import interleaved, peak_of, quartiles, ratios, warmed

STEPS = 50  # of every network but dit-s, whose calls take a second: it takes 8


def main() -> None:
    """Parse, measure, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--network", nargs="+", default=["mlp", "digits"], choices=list(NETWORKS))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", default="benchmark.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for name in options.network:
            contest = contest_of(name, Path(folder), options.threads)
            tables += [
                loop_table(contest, batch, options.rounds, not options.no_compile)
                for batch in options.batch
            ]
            tables.append(size_table(contest))
        module, _, path = network_of("digits", Path(folder))
        tables.append(cold_table(Path(folder), module, path, min(options.rounds, 7)))
        tables += [
            check_table("digits.onnx", path, options.rounds),
            check_table("200 MB", large_file(Path(folder) / "large.onnx"), min(options.rounds, 7)),
        ]
    print(
        f"\nthreads {options.threads}, {os.cpu_count()} cores, median [quartiles], Euler steps\n"
    )
    for table in tables:
        show(table)
    Path(options.out).write_text(
        json.dumps({"threads": options.threads, "tables": tables}, indent=1)
    )
    print(f"\nwritten to {options.out}")


@dataclass(frozen=True)
class Contest:
    """One network: the torch module, its file, the same with the loop inside, and the steps of a run."""

    name: str
    module: Any
    model: Any
    sampler: Any
    steps: int


def contest_of(name: str, folder: Path, threads: int) -> Contest:
    """Both files of a network, opened."""
    import torch

    import runtimes
    from export import export_torch

    torch.set_num_threads(threads)
    module, spec, path = network_of(name, folder)
    export_torch(module, spec, folder / "sampler.onnx", form="sampler", overwrite=True)
    files = (path, folder / "sampler.onnx")
    model, sampler = (runtimes.load(one, provider="cpu", threads=threads) for one in files)
    return Contest(name, module, model, sampler, 8 if name == "dit-s" else STEPS)


def network_of(name: str, folder: Path) -> tuple[Any, Any, Path]:
    """A network as a torch module, its spec and its model file."""
    from export import export_torch
    from toolkit.networks import layers_torch, make

    recipe, sizes, spec = NETWORKS[name]()
    module = make(recipe, sizes, layers_torch).eval()
    path = folder / f"{name}.onnx"
    if not path.exists():
        export_torch(module, spec, path)
    return module, spec, path


def trained_on(name: str) -> tuple[Any, Any, Any]:
    """The recipe, sizes and spec that a data set gets by default."""
    from toolkit import data
    from toolkit.networks import condition_of, sizes_of
    from toolkit.recipe import default_recipe, spec_of

    known = data.load(name)
    recipe = default_recipe(known)
    return recipe, sizes_of(recipe, known.shape, condition_of(known)), spec_of(recipe, known)


def dit_s() -> tuple[Any, Any, Any]:
    """DiT-S/2 on 32 x 32 x 4 (Peebles & Xie 2023, table 1): width 384, 12 blocks, 6 heads, 256 tokens."""
    from runtimes.spec import Condition, Spec
    from toolkit.networks import Sizes
    from toolkit.recipe import Recipe

    condition = Condition("label", classes=10)
    recipe = Recipe("none", "dit", 384, 12, 6, (2, 2))
    sizes = Sizes((32, 32, 4), condition, 384, 12, 6, (2, 2))
    return recipe, sizes, Spec("dit-s", (32, 32, 4), condition=condition)


def loop_table(contest: Contest, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """The network's calls bare, and the whole Euler loop by every contender, in milliseconds."""
    import torch

    from runtimes.noise import noise, seed_rows
    from runtimes.sample import plan

    model, module, steps = contest.model, contest.module, contest.steps
    x = noise(seed_rows(0, batch), model.spec.shape, 0)
    feeds = {"x": x, "time": np.full(batch, 0.5, np.float32)}
    told: dict[str, Any] = {"solver": "euler", "steps": steps}
    if model.spec.condition.kind == "label":
        feeds["label"] = np.arange(batch, dtype=np.int64) % 10
        told |= {"label": feeds["label"].tolist(), "guidance": 1.0}
    todo, inside = (plan(one, batch, **told) for one in (model, contest.sampler))
    labels = feeds.get("label")
    tensors = [torch.from_numpy(array) for array in feeds.values()]

    def bare() -> None:
        for _ in range(steps):
            model.session.run(["prediction"], feeds)

    def states(todo: Any, pace: float) -> Callable[[], None]:
        return lambda: [None for _ in todo.states(0, batch, pace)].clear()

    still = replace(todo, model=Still(model.spec, model.network(x, 0.5, labels)))
    contenders = {
        "onnxruntime, bare calls": bare,
        "ours, loop in the graph": states(inside, float("inf")),
        "ours, in the graph step by step": states(inside, 0.0),
        "ours, loop on the host": states(todo, 0.0),
        "ours, all but the network": states(still, 0.0),
        "torch eager loop": lambda: torch_loop(module, tensors, steps),
    }
    if compiled:
        fast = torch.compile(module)
        contenders["torch.compile loop"] = lambda: torch_loop(fast, tensors, steps)
    if importlib.util.find_spec("diffusers"):
        contenders |= diffusers_loops(contest, x, labels, steps)
    return {
        "title": f"{contest.name}, batch {batch}, {steps} steps",
        "unit": "ms",
        "base": "onnxruntime, bare calls",
        "steps": steps,
        "rows": timed(contenders, rounds, 1e3, steps),
    }


def size_table(contest: Contest) -> dict[str, Any]:
    """The bytes of both files."""
    sizes = [len(one.file.content) / 1e3 for one in (contest.model, contest.sampler)]
    rows = [
        {"name": name, "value": [size] * 3, "ratio": [size / sizes[0]] * 3, "us_per_step": 0.0}
        for name, size in zip(("the network", "the sampler"), sizes, strict=True)
    ]
    title = f"{contest.name}, file"
    return {"title": title, "unit": "kB", "base": "the network", "steps": 1, "rows": rows}


@dataclass(frozen=True)
class Still:
    """A network that costs nothing: what is left of a run is noise, solver and checks."""

    spec: Any
    answer: Any

    def network(self, x: Any, t: Any, condition: Any = None) -> Any:
        """The same answer whatever was asked."""
        return self.answer


def torch_loop(module: Any, tensors: list[Any], steps: int) -> None:
    """The Euler loop a person writes in torch."""
    import torch

    x, _, *told = tensors
    with torch.no_grad():
        for k in range(steps):
            x = x + module(x, torch.full((len(x),), k / steps), *told) / steps


def diffusers_loops(
    contest: Contest, x: Any, labels: Any, steps: int
) -> dict[str, Callable[[], None]]:
    """diffusers' FlowMatchEuler around the same session and around torch."""
    import torch

    from export import TorchModel
    from toolkit.loop_diffusers import around_file, around_torch, loop

    start, told = torch.from_numpy(x), None if labels is None else torch.from_numpy(labels)
    times = [k / steps for k in range(steps + 1)]
    networks = {
        "diffusers + torch eager": around_torch(TorchModel(contest.model.spec, contest.module)),
        "diffusers + onnxruntime": around_file(contest.model),
    }

    def run(network: Any) -> None:
        loop("euler", lambda x, t: network(x, t, told), start, times)

    return {name: partial(run, network) for name, network in networks.items()}


def timed(
    contenders: dict[str, Callable[[], None]], rounds: int, scale: float, steps: int = 1
) -> list[dict[str, Any]]:
    """Median and quartiles of every contender, and of its ratio to the first within rounds."""
    seconds = interleaved(warmed(contenders), rounds)
    base = next(iter(seconds.values()))
    return [
        {
            "name": name,
            "value": [scale * q for q in quartiles(mine)],
            "ratio": ratios(mine, base),
            "us_per_step": statistics.median(
                (a - b) / steps * 1e6 for a, b in zip(mine, base, strict=True)
            ),
        }
        for name, mine in seconds.items()
    ]


COLD_OURS = """
import runtimes
model = runtimes.load({path!r}, provider="cpu", threads=1)
runtimes.sample(model, 1, label=3, solver="euler", steps=50, guidance=1.0)
"""
COLD_TORCH = """
import torch
torch.set_num_threads(1)
from safetensors.torch import load_file
from toolkit.networks import NETWORKS, Sizes, layers_torch
module = NETWORKS["dit"](layers_torch, Sizes.from_json({sizes!r})).eval()
module.load_state_dict(load_file({path!r}))
x, label = torch.randn(1, 8, 8, 1), torch.tensor([3])
with torch.no_grad():
    for k in range(50):
        x = x + module(x, torch.full((1,), k / 50), label) / 50
"""


def cold_table(folder: Path, module: Any, path: Path, rounds: int) -> dict[str, Any]:
    """From process start to the first sample: wall seconds and peak memory, ours against torch."""
    from safetensors.torch import save_file

    weights = folder / "weights.safetensors"
    save_file(module.state_dict(), weights)
    sizes = NETWORKS["digits"]()[1]
    programs = {
        "torch eager": COLD_TORCH.format(path=str(weights), sizes=sizes.to_json()),
        "ours": COLD_OURS.format(path=str(path)),
    }
    memory: dict[str, float] = {}

    def start(name: str) -> None:
        memory[name] = max(memory.get(name, 0.0), peak_of(programs[name]))

    rows = timed({name: lambda name=name: start(name) for name in programs}, rounds, 1.0)
    for one in rows:
        one["megabytes"] = memory[one["name"]]
    return {
        "title": "process start to first sample",
        "unit": "s",
        "base": "torch eager",
        "rows": rows,
    }


def check_table(name: str, path: Path, rounds: int) -> dict[str, Any]:
    """What every load pays before ONNX Runtime sees the file, beside the one read that bounds it."""
    from runtimes import modelfile

    contenders = {
        "read and SHA-256 alone": lambda: hashlib.sha256(path.read_bytes()).digest(),
        "read and checked": lambda: modelfile.read(path),
    }
    rows = timed(contenders, rounds, 1e3)
    return {
        "title": f"{name}, before ONNX Runtime",
        "unit": "ms",
        "base": "read and SHA-256",
        "rows": rows,
    }


def large_file(path: Path) -> Path:
    """A sealed model file of 200 MB: x plus a weight that is all it holds."""
    import onnx
    from onnx import TensorProto, helper

    from runtimes import Spec, modelfile
    from runtimes.spec import to_json

    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2][:rank])
        for name, rank in (("x", 2), ("time", 1), ("prediction", 2))
    ]
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[25_000_000, 2])
    weight.raw_data = bytes(200_000_000)
    nodes = [
        helper.make_node("ReduceMax", ["w"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["prediction"]),
    ]
    graph = helper.make_graph(nodes, "large", values[:2], values[2:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    model.metadata_props.add(key=modelfile.SPEC_KEY, value=to_json(Spec("large", (2,))))
    path.write_bytes(modelfile.seal(model.SerializeToString()))
    return path


def show(table: dict[str, Any]) -> None:
    """One table for people."""
    print(f"{table['title']:<34} {table['unit']:>8}  [quartiles]         / {table['base']}")
    for one in table["rows"]:
        low, middle, high = one["value"]
        line = f"  {one['name']:<32} {middle:8.2f}  [{low:.2f}, {high:.2f}]"
        line = f"{line:<64} {one['ratio'][1]:6.2f} x"
        if "megabytes" in one:
            line += f"  {one['megabytes']:.0f} MB"
        elif one["name"].startswith("ours, ") and "all but" not in one["name"]:
            line += f"  {one['us_per_step']:+.0f} us per step"
        print(line)
    print()


# what the files are made from: recipe, sizes and spec of an untrained network
NETWORKS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "mlp": lambda: trained_on("two-moons"),
    "digits": lambda: trained_on("digits"),
    "dit-s": dit_s,
}


if __name__ == "__main__":
    main()
