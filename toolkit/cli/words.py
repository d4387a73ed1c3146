"""Words on a terminal: one line, whatever a path or a stranger's file holds."""


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, which could move the cursor."""
    text = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in text)
