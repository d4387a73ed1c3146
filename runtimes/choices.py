"""What a caller gave, looked at: a name from a list, a number, and words for the error if it is neither."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

import numpy as np

CALL = re.compile(r"(\w+)\((.*)\)")
NUMBERS = (1e-9, 1e9)
PLAIN = re.compile(r"[-+.,eE0-9 ]*")  # float() would take 1_000 and other alphabets' digits


def choose(what: str, got: object, choices: Iterable[str]) -> str:
    """`got`, if it is one of the choices; else ValueError with all of them and the nearest guess."""
    names = list(choices)
    if isinstance(got, str) and got in names:
        return got
    near = get_close_matches(got[:80], names, n=1) if isinstance(got, str) else []
    guess = f"did you mean {near[0]!r}?" if near else "choose one of these"
    raise ValueError(f"{what}: expected one of {', '.join(names)}, got {quoted(got)}; {guess}")


def quoted(value: object, most: int = 80) -> str:
    """repr(value) in one line of at most so many characters: what came may be a megabyte of anything."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not write out numbers of more than 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."


def is_number(value: object) -> bool:
    """Whether it is a real number, Python's or numpy's; True and False are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )


def named_function(
    what: str, got: object, functions: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """functions["name"] for "name"; for "name(2, 0.5)" the same with these numbers as its last arguments.

    The numbers are within `NUMBERS` and stand for the parameters that have defaults, or for *numbers.
    """
    call = CALL.fullmatch(got) if isinstance(got, str) else None
    if call is None:
        return functions[choose(what, got, functions)]
    name, text = choose(what, call[1], functions), call[2]
    function = functions[name]
    slots = [
        slot
        for slot in signature(function).parameters.values()
        if slot.default is not Parameter.empty or slot.kind is Parameter.VAR_POSITIONAL
    ]
    most = math.inf if any(slot.kind is Parameter.VAR_POSITIONAL for slot in slots) else len(slots)
    try:
        numbers = [float(word) for word in text.split(",")] if PLAIN.fullmatch(text) else []
    except ValueError:
        numbers = []
    low, high = NUMBERS
    if not 0 < len(numbers) <= most or not all(low <= number <= high for number in numbers):
        inside = ", ".join(f"{s.name}={s.default:g}" if most < math.inf else s.name for s in slots)
        wanted = f"{name!r} without numbers"
        if slots:
            wanted = f"{name}({inside}) with numbers from {low:g} to {high:g}"
        raise ValueError(
            f"{what}: expected {wanted}, got {quoted(got, 60)}; {name!r} alone will do"
        )
    return lambda *args: function(*args, *numbers)
