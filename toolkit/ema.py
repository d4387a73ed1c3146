"""average <- d * average + (1 - d) * value: a moving average of the weights, steadier than the last ones.

The decay d warms up, min(decay, (1 + step) / (10 + step)), so that a young average is not made of the
first random weights. Arrays are touched only with + and *.
"""

from typing import Any


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + step) / (10 + step)). step: how many updates there were before, from 0."""
    return min(decay, (1.0 + step) / (10.0 + step))


def update(average: Any, value: Any, decay: float) -> Any:
    """decay * average + (1 - decay) * value."""
    return average * decay + value * (1.0 - decay)
