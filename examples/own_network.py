"""Your own torch network and your own training loop, sampled anywhere: two moons in about a minute.

    python examples/own_network.py            # writes moons.onnx and moons.png here

Only two things tie the network to the toolkit: it is called as module(x, time), and a Spec says what
it was trained to predict. The path here is x = t * data + (1 - t) * noise, the target data - noise.
"""

import argparse

import torch

import runtimes
from export import export_torch
from toolkit import data
from toolkit.show import save_trajectory


class Field(torch.nn.Module):
    """Somebody's own velocity field in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 128),
            torch.nn.SiLU(),
            torch.nn.Linear(128, 128),
            torch.nn.SiLU(),
            torch.nn.Linear(128, 2),
        )

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """velocity (B, 2) at the points x (B, 2) and times (B,)."""
        return self.layers(torch.cat([x, time[:, None]], dim=1))


def train(field: Field, points: torch.Tensor, steps: int) -> None:
    """Flow matching: |field(x_t, t) - (data - noise)|^2, averaged over t, data and noise."""
    optimiser = torch.optim.AdamW(field.parameters(), lr=2e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(points), (512,), generator=random)
        noise = torch.randn(512, 2, generator=random)
        time = torch.rand(512, generator=random)
        x = time[:, None] * points[rows] + (1 - time[:, None]) * noise
        loss = (field(x, time) - (points[rows] - noise)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"loss {loss.item():.3f} after {steps} steps")


def main() -> None:
    """Train, export with the parity gate, sample with ONNX Runtime, draw the way from noise to data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--out", default=".")
    options = parser.parse_args()

    field = Field()
    train(field, torch.from_numpy(data.load("two-moons").x), options.steps)
    spec = runtimes.Spec("two-moons", shape=(2,), sampler=runtimes.Sampler("heun", steps=20))
    report = export_torch(field, spec, f"{options.out}/moons.onnx", overwrite=True)
    print(report.table())

    model = runtimes.load(f"{options.out}/moons.onnx")
    todo = runtimes.plan(model, 500, seed=0)
    states = [state.x for state in todo.states(0, 500)]
    print(save_trajectory(f"{options.out}/moons.png", states, todo.times))


if __name__ == "__main__":
    main()
