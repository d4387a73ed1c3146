"""A name from a list of names, with the error a person can act on."""

from collections.abc import Iterable
from difflib import get_close_matches


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
