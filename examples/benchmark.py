"""Speed, side by side in one run: ours on ONNX Runtime against torch eager, compiled and diffusers.

    python examples/benchmark.py                  # the table, and benchmark.json
    python examples/benchmark.py --no-compile     # without torch.compile's minutes of compiling

Each round times every contender once, in random order; a figure is the median over rounds with its
quartiles, a ratio the median of the ratios within rounds. Weights are random: speed does not care.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 50
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Parse, measure, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", default="benchmark.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        module, model, path = default_network(Path(folder), options.threads)
        tables = [
            loop_table(module, model, batch, options.rounds, not options.no_compile)
            for batch in options.batch
        ]
        tables.append(cold_table(Path(folder), module, path, min(options.rounds, 7)))
        tables += [
            check_table("digits.onnx", path, options.rounds),
            check_table("200 MB", large_file(Path(folder) / "large.onnx"), min(options.rounds, 7)),
        ]
    print(
        f"\nthreads {options.threads}, {os.cpu_count()} cores, median [quartiles], {STEPS} Euler steps\n"
    )
    for table in tables:
        show(table)
    Path(options.out).write_text(
        json.dumps({"threads": options.threads, "tables": tables}, indent=1)
    )
    print(f"\nwritten to {options.out}")


def default_network(folder: Path, threads: int) -> tuple[Any, Any, Path]:
    """The default digits network as a torch module and as an opened model file."""
    import torch

    import runtimes
    from export import export_torch
    from toolkit import data
    from toolkit.networks import build
    from toolkit.recipe import default_recipe
    from toolkit.train_torch import spec_of

    torch.set_num_threads(threads)
    digits = data.load("digits")
    recipe = default_recipe(digits)
    torch.manual_seed(0)
    module = build(recipe, digits).eval()
    path = folder / "digits.onnx"
    export_torch(module, spec_of(recipe, digits), path)
    return module, runtimes.load(path, provider="cpu", threads=threads), path


def default_sizes() -> Any:
    """The sizes of that network."""
    from toolkit import data
    from toolkit.networks import condition_of, sizes_of
    from toolkit.recipe import default_recipe

    digits = data.load("digits")
    return sizes_of(default_recipe(digits), digits.shape, condition_of(digits))


def loop_table(module: Any, model: Any, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """50 network calls bare, and the whole Euler loop by every contender, in milliseconds."""
    import torch

    from runtimes.noise import noise, seed_rows
    from runtimes.sample import plan

    shape = model.spec.shape
    x = noise(seed_rows(0, batch), shape, 0)
    labels = np.arange(batch, dtype=np.int64) % 10
    todo = plan(model, batch, label=labels.tolist(), solver="euler", steps=STEPS, guidance=1.0)
    feeds = {"x": x, "time": np.full(batch, 0.5, np.float32), "label": labels}
    tensors = [torch.from_numpy(a) for a in (x, feeds["time"], labels)]

    def bare() -> None:
        for _ in range(STEPS):
            model.session.run(["prediction"], feeds)

    def ours() -> None:
        for _ in todo.states(0, batch):
            pass

    still = replace(todo, model=Still(model.spec, model.network(x, 0.5, labels)))

    def arithmetic() -> None:
        for _ in still.states(0, batch):
            pass

    contenders = {
        "onnxruntime, bare calls": bare,
        "ours, whole loop": ours,
        "ours, all but the network": arithmetic,
        "torch eager, bare calls": lambda: torch_calls(module, tensors),
        "torch eager loop": lambda: torch_loop(module, tensors),
    }
    if compiled:
        fast = torch.compile(module)
        contenders["torch.compile loop"] = lambda: torch_loop(fast, tensors)
    if importlib.util.find_spec("diffusers"):
        contenders["diffusers + torch eager"] = diffusers_loop(
            module_call(module, tensors[2]), tensors[0]
        )
        contenders["diffusers + onnxruntime"] = diffusers_loop(ort_call(model, labels), tensors[0])
    return {
        "title": f"digits network, batch {batch}",
        "unit": "ms",
        "base": "onnxruntime, bare calls",
        "rows": interleave(contenders, rounds, 1e3),
    }


@dataclass(frozen=True)
class Still:
    """A network that costs nothing: what is left of a run is noise, solver and checks."""

    spec: Any
    answer: Any

    def network(self, x: Any, t: Any, condition: Any = None) -> Any:
        """The same answer whatever was asked."""
        return self.answer


def torch_calls(module: Any, tensors: list[Any]) -> None:
    """50 bare calls in torch."""
    import torch

    with torch.no_grad():
        for _ in range(STEPS):
            module(*tensors)


def torch_loop(module: Any, tensors: list[Any]) -> None:
    """The Euler loop a person writes in torch."""
    import torch

    x, _, labels = tensors
    with torch.no_grad():
        for k in range(STEPS):
            x = x + module(x, torch.full((len(x),), k / STEPS), labels) / STEPS


def module_call(module: Any, labels: Any) -> Callable[[Any, float], Any]:
    """velocity(x, t) by torch."""
    import torch

    def call(x: Any, t: float) -> Any:
        with torch.no_grad():
            return module(x, torch.full((len(x),), t), labels)

    return call


def ort_call(model: Any, labels: Any) -> Callable[[Any, float], Any]:
    """velocity(x, t) by the same ONNX Runtime session, torch tensors in and out as optimum does it."""
    import torch

    return lambda x, t: torch.from_numpy(model.network(x.numpy(), t, labels))


def diffusers_loop(call: Callable[[Any, float], Any], x: Any) -> Callable[[], None]:
    """diffusers' FlowMatchEulerDiscreteScheduler around a velocity; its sigma is our 1 - t."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(None):
        warnings.simplefilter("ignore")
        from diffusers import FlowMatchEulerDiscreteScheduler

    def run() -> None:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(STEPS)
        state = x
        for sigma, t in zip(scheduler.sigmas.tolist(), scheduler.timesteps, strict=False):
            state = scheduler.step(-call(state, 1.0 - sigma), t, state).prev_sample

    return run


def interleave(
    contenders: dict[str, Callable[[], None]], rounds: int, scale: float
) -> list[dict[str, Any]]:
    """Time every contender once a round, in random order, after one round to warm up."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            started = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - started)
    return [row(name, seconds[name], next(iter(seconds.values())), scale) for name in contenders]


def row(name: str, seconds: list[float], base: list[float], scale: float) -> dict[str, Any]:
    """Median and quartiles of one contender, and of its ratio to the base within rounds."""
    ratios = [mine / theirs for mine, theirs in zip(seconds, base, strict=True)]
    extra = [(mine - theirs) / STEPS * 1e6 for mine, theirs in zip(seconds, base, strict=True)]
    return {
        "name": name,
        "value": [scale * q for q in statistics.quantiles(seconds, n=4)],
        "ratio": statistics.quantiles(ratios, n=4),
        "us_per_step": statistics.median(extra),
    }


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
    programs = {
        "torch eager": COLD_TORCH.format(path=str(weights), sizes=default_sizes().to_json()),
        "ours": COLD_OURS.format(path=str(path)),
    }
    memory: dict[str, float] = {}

    def start(name: str) -> None:
        memory[name] = max(memory.get(name, 0.0), peak_of(programs[name]))

    rows = interleave({name: lambda name=name: start(name) for name in programs}, rounds, 1.0)
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
    rows = interleave(contenders, rounds, 1e3)
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


PEAK = """
import re, resource, sys
try:  # Linux: getrusage would count the process that started this one too, before its exec
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
except FileNotFoundError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def peak_of(program: str) -> float:
    """Run a Python program in its own process; its peak resident memory in megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", program + PEAK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def show(table: dict[str, Any]) -> None:
    """One table for people."""
    print(f"{table['title']:<34} {table['unit']:>8}  [quartiles]         / {table['base']}")
    for one in table["rows"]:
        low, middle, high = one["value"]
        line = f"  {one['name']:<32} {middle:8.2f}  [{low:.2f}, {high:.2f}]"
        line = f"{line:<64} {one['ratio'][1]:6.2f} x"
        if "megabytes" in one:
            line += f"  {one['megabytes']:.0f} MB"
        elif one["name"] == "ours, whole loop":
            line += f"  {one['us_per_step']:+.0f} us per step"
        print(line)
    print()


if __name__ == "__main__":
    main()
