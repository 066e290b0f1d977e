"""The words of the field: docstrings, comments, messages and README do without the expressions listed here.

Each has a standard term that a reader who knows PyTorch understands at first reading. Names in code are not looked at.
"""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PRIVATE = {
    r"reckon\w*": "compute",
    r"(the|a|each|every|that|its|one|two|three) ways? (there|back)|way back": "forward pass, reverse pass",
    r"(goes|go|going|gone|went) back": "is differentiated, the reverse pass",
    r"anew": "again, or re-",
    r"heard|hears?|unheard|hearing": "recorded",
    r"told|retold": "notified, given",
    r"doors?": "interception",
    r"(the|a) bench|bench of": "workspace",
    r"bears?|bearing|borne": "is named, has",
    r"nobody|whoever|somebody": "unused; the caller",
    r"first stands?|stands? (first|last)": "comes first, comes last",
    r"what (goes|went|comes|came) (in|out)": "the inputs, the outputs",
    r"answer(s|ed|ing)?": "returns; the result",
    r"overlooks?|the poorer|as (it|they) likes?": "say it plainly",
}
"""Expressions as regular expressions, each with what to write in its place."""

FOLDERS = ("circuits", "models", "scripts", "tests")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FILES = [*CODE, ROOT / "README.md", ROOT / "CHANGELOG.md"]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of prose in a file with their numbers: of a Python file, its strings and comments."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        return
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.COMMENT)}
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in kinds:
                yield from enumerate(token.string.splitlines(), token.start[0])


def private_words(text: str) -> list[str]:
    """The private expressions in a text, each with its standard term."""
    found = []
    for expression, standard in PRIVATE.items():
        # A word in backticks is a name of code, a word in a path or with a dot or an underscore beside it too.
        for match in re.finditer(rf"(?<![\w`./-])({expression})(?![\w`/(=-]|\.\w)", text, re.IGNORECASE):
            found.append(f"{match[0]!r} (write: {standard})")
    return found


def test_private_words_are_found() -> None:
    assert private_words("The way back reckons each cotangent anew.") == [
        "'reckons' (write: compute)",
        "'The way back' (write: forward pass, reverse pass)",
        "'anew' (write: again, or re-)",
    ]
    assert private_words("`answer = told(x)` in scripts/bench.py") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_words(path: Path) -> None:
    if path == Path(__file__):
        return
    found = [f"{number}: {word}: {line.strip()}" for number, line in prose(path) for word in private_words(line)]
    assert not found, "\n".join([f"{path.relative_to(ROOT)}", *found])
