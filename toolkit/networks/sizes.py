"""What a network is built from: the shape of a sample, what it is conditioned on, and its sizes."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from runtimes.spec import Condition

MOST_AXES = 3  # (T, H, W, C): a tensor in a network has at most rank 5, its batch included


@dataclass(frozen=True)
class Sizes:
    """One network in numbers.

    shape: of a sample, channels last. width: features per token or layer. depth: how many blocks.
    heads: of attention, a divisor of width. patch: side of a patch along each axis but the last;
    () is 1 everywhere. The MLP has neither heads nor patches.
    """

    shape: tuple[int, ...]
    condition: Condition = field(default_factory=Condition)
    width: int = 64
    depth: int = 3
    heads: int = 4
    patch: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"{name}: expected a whole number of 1 or more, got {value!r}; try 64, 3 and 4"
                )
        if self.width % self.heads:
            raise ValueError(
                f"width: expected a multiple of the {self.heads} heads, got {self.width}; "
                f"give {self.width - self.width % self.heads or self.heads}"
            )
        axes = self.shape[:-1]
        whole = all(p > 0 and n % p == 0 for n, p in zip(axes, self.patches, strict=False))
        if len(self.patches) != len(axes) or not whole:
            raise ValueError(
                f"patch: expected a divisor of each of the sizes {axes}, got {self.patches}; "
                "1 always fits"
            )

    @property
    def patches(self) -> tuple[int, ...]:
        """The patch size of every axis but the last."""
        return self.patch or (1,) * (len(self.shape) - 1)

    @property
    def size(self) -> int:
        """How many numbers a sample has."""
        product = 1
        for n in self.shape:
            product *= n
        return product

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Sizes":
        """The sizes that `to_json` wrote."""
        raw: dict[str, Any] = {key: _tuple(value) for key, value in json.loads(text).items()}
        condition = {key: _tuple(value) for key, value in raw.pop("condition").items()}
        return cls(condition=Condition(**condition), **raw)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
