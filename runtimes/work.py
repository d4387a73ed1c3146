"""How much work a call of a network is, and what follows from it: how many threads, how many rows.

Two threads beside one on two cores without other work: wall time as the median of 51 interleaved ratios, and
CPU time of all threads. A product is about how many multiplications the largest one of a call takes (see
`product`); a network of many small steps gains later than one that is all products:

                                 product     wall      CPU time
    digits, 1 row                  1.6 M     1.17        2.06
    digits, 4 rows                 6.3 M     1.00        1.84
    digits, 8 rows                12.6 M     0.90        1.73
    digits, 16 rows               25.2 M     0.81        1.55
    MLP of two-moons, 64 rows      2.1 M     0.78 and, another time, 1.53
    MLP of two-moons, 1024 rows   33.6 M     0.56        1.07
    layers of 64 on 32 x 32        4.2 M     0.61        1.16
    layers of 128 on 32 x 32      16.8 M     0.55        1.04

CPU time of one thread for a sample, beside the best of 1, 4, 8, 16, 64, 256, 1024 and all in a call:

    MLP of two-moons, 4096 samples        1024 rows  1.04     64 rows  1.15 to 1.39    all  1.18
    digits, 64 samples                      32 rows  1.01     16 rows  1.10            all  1.03
    DiT of 1.3 M weights, 64 samples        32 rows  1.00     16 rows  1.06            all  1.05
    DiT of 7 M weights, 16 samples           8 rows  1.01      1 row   1.45            all  1.01
    DiT-S/2, 4 samples                       2 rows  1.06      1 row   1.00            all  1.09
    convolutions of 64 on 28 x 28, 32        2 rows  1.00      1 row   1.10            all  1.23
    convolutions of 16 on 28 x 28, 64        2 rows  1.17      8 rows  1.00            all  1.14
"""

import math
import os

from .modelfile import ModelFile
from .spec import Spec

SHARE = 4_000_000  # multiplications of a product that are worth a thread
PLACES = 2048  # in a call: enough to use a weight that has been read, few enough for the caches
BATCH = 64  # where nothing is known of who runs the network
LARGEST_BATCH = 1024  # of samples without places
ALL = "all"  # cores, whatever the size
# Microseconds for which a thread without work looks out for more: the next product of a call comes sooner.
# ONNX Runtime's own takes 20 ms of a core after every call, and where others want that core, twice the time.
SPIN = 20


def threads(asked: int | str, file: ModelFile, spec: Spec, rows: int) -> int:
    """So many as asked; for ALL every core; for 0 one for each SHARE of a product, one to every core.

    rows: samples in a call, `batch` if more. Raises ValueError for anything else.
    """
    if asked == ALL:
        return cores()
    if type(asked) is not int or not 0 <= asked <= 1024:
        raise ValueError(
            f"threads: expected 0 to 1024 or {ALL!r}, got {asked!r}; 0 chooses by the size of the network"
        )
    if asked:
        return asked
    shares = product(file, spec, min(rows, batch(spec))) // SHARE
    return min(max(shares, 1), cores())


def batch(spec: Spec) -> int:
    """Samples per call on the CPU: of PLACES places together, 1 at least and LARGEST_BATCH at most."""
    return min(max(PLACES // places(spec), 1), LARGEST_BATCH)


def product(file: ModelFile, spec: Spec, rows: int) -> int:
    """numbers in the largest weight x places in a sample x rows of the call.

    For a network that works place by place; a patch of several places counts as so many. ONNX Runtime divides
    every product by itself, so what counts is how large one is, and not how many there are.
    """
    # an unrolled file has a batch of its own, most often 1
    return file.largest * places(spec) * (1 if file.form == "unrolled" else rows)


def places(spec: Spec) -> int:
    """Those of a sample, channels last: its pixels, frames times pixels, points, or 1."""
    return math.prod(spec.shape[:-1])


def cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
