"""Numbers as a person types them: plain digits only.

Python's own readers also take ' 7 ', '1_000' and digits of any script; what looks like a slip is one.
"""

import re
from collections.abc import Callable
from typing import Any

import click

WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf)")


class Plain(click.ParamType):
    """A number of one kind; what else an option asks of it is checked where it is used."""

    def __init__(self, name: str, form: re.Pattern[str], make: Callable[[str], Any]) -> None:
        self.name, self.form, self.make = name, form, make

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; click's own error names the option otherwise."""
        if not isinstance(value, str):
            return value
        if self.form.fullmatch(value) is None:
            self.fail(f"expected a number in plain digits, got {value[:80]!r}", param, ctx)
        return self.make(value)


def plain(command: click.Command) -> click.Command:
    """The command with every number among its options read strictly."""
    for option in command.params:
        option.type = STRICT.get(option.type.name, option.type)
    return command


def threads(text: str) -> int | str:
    """'2' -> 2; what is no number is left to `runtimes.load`, which knows the one word."""
    return int(text) if WHOLE.fullmatch(text) else text


STRICT = {"integer": Plain("integer", WHOLE, int), "float": Plain("float", REAL, float)}
