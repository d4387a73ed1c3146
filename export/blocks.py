"""A matrix in whole numbers of few bits: 8 to 32 inputs of an output make a block with a scale of its own.

    eight   W = s q,  q = -127 .. 127,  s = the largest |W| of the block / 127
    four    W = s q,  q = -8 .. 7,      s = that W / -8: it is met exactly, whatever its sign

Of 4 bits two neighbouring outputs make a byte; `PAIRS` has the two numbers of every byte. A scale is kept in
bfloat16, whose range is that of float32: no weight is too small or too large for it, and what its rounding
costs the numbers make good. A zero beside the scale, or a scale that makes the squared errors least, did
not bring samples nearer (measured on the digits network).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST, SMALLEST = 32, 8  # inputs of a block
FEW = 32  # outputs
PAIRS = np.stack([np.arange(256) & 15, np.arange(256) >> 4], 1).astype(np.int8) - np.int8(8)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Blocks:
    """W is the product of the two, reshaped; of 4 bits once `PAIRS` has been looked up.

    numbers: int8 (blocks, inputs of a block, outputs) or uint8 (blocks, inputs of a block, outputs / 2).
    scale: float32 that bfloat16 has too, (blocks, 1, outputs) or (blocks, 1, outputs / 2, 2).
    """

    numbers: NDArray[np.int8] | NDArray[np.uint8]
    scale: Floats


def eight(weight: Floats) -> Blocks | None:
    """W (inputs, outputs) in 8 bits, or None: see `_cut`."""
    blocks = _cut(weight)
    if blocks is None:
        return None
    scale = bfloat16(np.abs(blocks).max(1, keepdims=True) / 127.0)
    return Blocks(_whole(blocks, scale, -127, 127), scale)


def four(weight: Floats) -> Blocks | None:
    """W in 4 bits; None for an odd number of outputs too."""
    blocks = _cut(weight)
    if blocks is None or weight.shape[1] % 2:
        return None
    largest = np.abs(blocks).argmax(1)[:, None]
    scale = bfloat16(np.take_along_axis(blocks, largest, 1) / -8.0)
    nibbles = (_whole(blocks, scale, -8, 7) + 8).astype(np.uint8)
    pairs = nibbles[..., 0::2] | nibbles[..., 1::2] << 4
    return Blocks(pairs, scale.reshape(len(scale), 1, -1, 2))


def _cut(weight: Floats) -> Floats | None:
    """(blocks, inputs of a block, outputs): the largest blocks of 8 to 32 inputs that are all full.

    None where there are none, and for fewer than 32 outputs: such a layer is a network's last, it weighs
    little, and there is nothing behind it that its errors could cancel in. Raises ValueError for a weight
    that is not finite.
    """
    if not np.isfinite(weight).all():
        raise ValueError(
            "precision: expected finite weights, got NaN or infinity; leave it at fp32, or train again"
        )
    inputs, outputs = weight.shape
    size = max((n for n in range(SMALLEST, LARGEST + 1) if inputs % n == 0), default=0)
    if not size or outputs < FEW:
        return None
    return weight.reshape(-1, size, outputs)


def _whole(blocks: Floats, scale: Floats, low: int, high: int) -> NDArray[np.int8]:
    """The whole numbers nearest to blocks / scale; 0 where the scale is."""
    steps = blocks / np.where(scale == 0.0, np.float32(1.0), scale)
    return np.clip(np.round(steps), low, high).astype(np.int8)


def bfloat16(values: Floats) -> Floats:
    """float32 whose lower 16 bits are 0: the nearest, on a tie the even one."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return upper.astype(np.uint32).view(np.float32)
