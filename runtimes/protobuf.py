"""The wire format of protobuf, read strictly: a field that is not expected is refused, not skipped.

A message is a run of (tag, value), tag = 8 * field number + kind: 0 a number, 2 a length and so many
bytes, 1 and 5 eight and four bytes. Parsers skip what they do not know and let the last of two values
win, so a lenient reader and ONNX Runtime could see two different models. Here every tag is known and
nothing that may stand once stands twice.
"""

from dataclasses import dataclass

Bytes = bytes | memoryview
Value = int | Bytes
KINDS = {"int": 0, "double": 1, "bytes": 2, "float": 5}
SMALL = 1 << 16  # bytes: below it a copy is cheaper than the slow indexing of a memoryview


class Broken(ValueError):
    """These bytes are not the message they should be."""


@dataclass
class Budget:
    """How many more fields may be read: what bounds the time that a stranger's file can take."""

    left: int


def layout(*fields: str) -> dict[int, str]:
    """tag -> name, from lines such as '7 bytes graph'; a name that ends in * may stand many times."""
    split = [field.split() for field in fields]
    return {int(number) << 3 | KINDS[kind]: name for number, kind, name in split}


def read(message: Bytes, expected: dict[int, str], budget: Budget) -> dict[str, list[Value]]:
    """The values of every field by name, in their order. Raises Broken, or IndexError at a short end."""
    message = bytes(message) if len(message) < SMALL else message
    found: dict[str, list[Value]] = {}
    at, end, left = 0, len(message), budget.left
    while at < end:
        tag, at = message[at], at + 1
        if tag > 127:
            tag, at = varint(message, at - 1)
        name = expected.get(tag)
        left -= 1
        if name is None or left < 0:
            raise Broken("a field that is not expected" if name is None else "too many fields")
        kind = tag & 7
        size = 8 if kind == 1 else 4
        if kind in (0, 2):
            size, at = message[at], at + 1
            if size > 127:
                size, at = varint(message, at - 1)
        value: Value = size
        if kind:
            value, at = message[at : at + size], at + size
        if name in found:
            found[name].append(value)
        else:
            found[name] = [value]
    budget.left = left
    if at > end:
        raise Broken("a field longer than its message")
    return found


def once(found: dict[str, list[Value]]) -> None:
    """Raise Broken if a field without a * stands twice."""
    for name, values in found.items():
        if len(values) > 1 and name[-1] != "*":
            raise Broken(f"{name} stands twice")


def numbers(values: list[Value], most: int) -> list[int]:
    """A repeated number field, one by one or packed, of at most so many numbers."""
    found: list[int] = []
    for value in values:
        at = 0
        while not isinstance(value, int) and at < len(value) and len(found) <= most:
            number, at = varint(value, at)
            found.append(number)
        if isinstance(value, int):
            found.append(value)
        if len(found) > most:
            raise Broken("too many numbers")
    return found


def text(found: dict[str, list[Value]], name: str) -> str:
    """A text field, empty where it is missing. Raises UnicodeDecodeError."""
    (value,) = found.get(name, [b""])
    return "" if isinstance(value, int) else bytes(value).decode()


def number(found: dict[str, list[Value]], name: str) -> int:
    """A number field, 0 where it is missing."""
    (value,) = found.get(name, [0])
    return value if isinstance(value, int) else 0


def messages(found: dict[str, list[Value]], name: str) -> list[Bytes]:
    """The messages of a field, undecoded."""
    return [value for value in found.get(name, ()) if not isinstance(value, int)]


def varint(message: Bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, low ones first, and where the next field starts."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 2**64:  # parsers drop the bits above: two readers would see two numbers
                break
            return value, at
    raise Broken("a number of more than 64 bits")
