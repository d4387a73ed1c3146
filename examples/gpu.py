"""On an NVIDIA card: the forms of a file on ONNX Runtime against torch eager and torch.compile, side by side.

    pip install -e ".[torch,cuda]" -c constraints.txt
    python examples/gpu.py                                # digits and DiT-S/2, batch 1 and 16
    python examples/gpu.py --provider tensorrt            # minutes of building, once
    python examples/gpu.py --provider cpu --network mlp   # the same lines without a card

Random weights, Euler, from the same noise to samples in the host's memory. A ratio is the median of those to
torch eager within rounds, an error the largest difference from its samples beside the largest of them. All
compute in float32 without TF32. It has not been run on a card yet.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import NETWORKS  # the script beside this one

from runtimes.timing import interleaved, quartiles, ratios, warmed

Contenders = dict[str, Callable[[], Any]]


def main() -> None:
    """Parse, look for the card, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--provider", default="cuda", choices=["cuda", "tensorrt", "cpu"])
    parser.add_argument(
        "--network", nargs="+", default=["digits", "dit-s"], choices=list(NETWORKS)
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()

    import torch

    on_card = options.provider != "cpu"
    if on_card and not torch.cuda.is_available():
        raise SystemExit(
            "no NVIDIA card that torch can use; --provider cpu runs the same comparison without one"
        )
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if on_card else "cpu"
    name = torch.cuda.get_device_name() if on_card else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        for network in options.network:
            for batch in options.batch:
                contest = contenders(network, batch, options, device, Path(folder))
                print(f"\n{network}, batch {batch}, {options.steps} steps on {name}")
                print(table(contest, options.rounds))


def contenders(
    network: str, batch: int, options: argparse.Namespace, device: str, folder: Path
) -> Contenders:
    """Each a whole run from the same noise; the first is torch eager."""
    import torch

    import runtimes
    from export import export_torch
    from runtimes.noise import noise, seed_rows
    from runtimes.spec import Sampler
    from toolkit.networks import layers_torch, make

    recipe, sizes, spec = NETWORKS[network]()
    module = make(recipe, sizes, layers_torch).eval()
    torch.manual_seed(0)
    for weight in module.parameters():
        # those that training starts from zero; by these a sample goes about as far as the noise is wide
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    spec = replace(spec, sampler=Sampler("euler", options.steps))
    told: dict[str, Any] = {"solver": "euler", "steps": options.steps, "guidance": 1.0}
    arrays = [noise(seed_rows(0, batch), spec.shape, 0)]
    if spec.condition.kind == "label":
        arrays.append(np.arange(batch) % spec.condition.classes)
        told["label"] = arrays[-1].tolist()

    contest: Contenders = {}
    for name, (form, precision, how) in FORMS.items():
        path = folder / f"{network}-{form}-{precision}-{batch}.onnx"
        if not path.exists():  # two run the sampler's
            export_torch(
                module, spec, path, accept=True, form=form, precision=precision, batch=batch
            )
        model = runtimes.load(path, provider=options.provider)
        contest[name] = lambda model=model, how=how: runtimes.sample(
            model, batch, batch=batch, how=how, **told
        )
    module = module.to(device)  # the exports above are done
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    called = {"torch eager": module}
    if not options.no_compile:
        called["torch.compile"] = torch.compile(module)
    if not options.no_compile and device == "cuda":
        called["torch.compile, CUDA graphs"] = torch.compile(module, mode="reduce-overhead")
    peers = {
        name: lambda one=one: euler(one, tensors, options.steps) for name, one in called.items()
    }
    return peers | contest


def euler(module: Any, tensors: list[Any], steps: int) -> Any:
    """The loop a person writes in torch, its end in the host's memory."""
    import torch

    x, *told = tensors
    with torch.no_grad():
        for k in range(steps):
            t = torch.full((len(x),), k / steps, device=x.device)
            x = x + module(x, t, *told) / steps
    return x.cpu().numpy()


def table(contest: Contenders, rounds: int) -> str:
    """Milliseconds, ratio to the first with quartiles, and error of each."""
    wanted, *others = (run() for run in contest.values())
    errors = [0.0, *(np.abs(one - wanted).max() / np.abs(wanted).max() for one in others)]
    seconds = interleaved(warmed(contest), rounds)
    first = next(iter(seconds.values()))
    lines = [f"{'':<32}{'ms':>9}  {'ratio':>5} [quartiles]      error"]
    for (name, mine), error in zip(seconds.items(), errors, strict=True):
        low, middle, high = ratios(mine, first)
        lines.append(
            f"{name:<32}{1e3 * quartiles(mine)[1]:9.3f}  {middle:5.2f} [{low:.2f}, {high:.2f}]    {error:.1e}"
        )
    return "\n".join(lines)


# name -> form, precision, and who runs the loop
FORMS = {
    "network, loop on the host": ("network", "fp32", "host"),
    "network in fp16": ("network", "fp16", "host"),
    "sampler, step by step": ("sampler", "fp32", "step"),
    "sampler, whole": ("sampler", "fp32", "graph"),
    "sampler in fp16, step by step": ("sampler", "fp16", "step"),
    "unrolled": ("unrolled", "fp32", "unrolled"),
}


if __name__ == "__main__":
    main()
