"""The fenced blocks of the README; `python tests/readme_blocks.py --tests` prints its test command."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """Every ```language block, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


def commands() -> list[str]:
    """Every line of the ```sh blocks that is a command, without its comment."""
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def command_of_tests() -> str:
    """The one command that passes the tests."""
    (command,) = [line for line in commands() if line.endswith("&& pytest")]
    return command


if __name__ == "__main__" and sys.argv[1:] == ["--tests"]:
    print(command_of_tests())
