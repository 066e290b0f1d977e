"""Random signatures, sizes and texts: sizes are drawn first and tensors made from them, so the result is known."""

import random
import string
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuits import ShapeError, Signature, SignatureError, check, checks, circuit

NAMES = ["a", "b", "c", "h", "k", "x_1", "y'", "λ"]

names = st.sampled_from(NAMES)
sizes_of_names = st.fixed_dictionaries({name: st.integers(1, 9) for name in NAMES})


@st.composite
def tensors(draw: st.DrawFn) -> list[list[str]]:
    """Draw the axes of 1 to 4 tensors as words: names, numbers and groups."""
    group = st.lists(names, min_size=1, max_size=3).map(lambda each: f"({' '.join(each)})")
    word = st.one_of(names, names, names, st.integers(1, 9).map(str), group)
    return draw(st.lists(st.lists(word, max_size=4), min_size=1, max_size=4))


def size_of(word: str, sizes: dict[str, int]) -> int:
    """Return the size of a word, computed by Python's own arithmetic."""
    total = 1
    for name in word.strip("()").split():
        total *= sizes[name] if name in sizes else int(name)
    return total


def known(words: Sequence[str]) -> set[str]:
    """Return the names whose sizes can be solved: plain ones, then repeatedly the only unknown name of a group."""
    found = {word for word in words if word in NAMES}
    for _ in words:
        for word in words:
            missing = [name for name in word.strip("()").split() if name in NAMES and name not in found]
            if len(missing) == 1:
                found.add(missing[0])
    return found


def empty(*sizes: int) -> Tensor:
    """Return a tensor of these sizes on the meta device, which uses no memory."""
    return torch.empty(sizes, device="meta")


def returns(*outputs: Tensor) -> Any:
    """Return a function that takes any tensors and returns `outputs`, alone or as a tuple."""
    return lambda *tensors: outputs[0] if len(outputs) == 1 else outputs


@given(tensors(), sizes_of_names, st.lists(st.integers(1, 4), max_size=2))
def test_check_returns_the_sizes_of_the_tensors(axes: list[list[str]], sizes: dict[str, int], rest: list[int]) -> None:
    for words in axes:
        found = check(empty(*rest, *(size_of(word, sizes) for word in words)), f"... {' '.join(words)}")
        assert found == {name: sizes[name] for name in known(words)}


@given(tensors(), tensors(), sizes_of_names, st.lists(st.integers(1, 4), max_size=2))
def test_tensors_with_one_set_of_sizes_fit(
    axes: list[list[str]], out: list[list[str]], sizes: dict[str, int], rest: list[int]
) -> None:
    """The generated check accepts tensors whose shapes were made from one set of sizes."""
    text = ", ".join(" ".join(["...", *words]) for words in axes) + " -> " + ", ".join(map(" ".join, out))
    made = [empty(*rest, *(size_of(word, sizes) for word in words)) for words in axes]
    results = [empty(*(size_of(word, sizes) for word in words)) for words in out]
    circuit(text)(returns(*results))(*made)


@given(tensors(), sizes_of_names, st.data())
def test_a_changed_size_is_refused_and_its_axis_named(
    axes: list[list[str]], sizes: dict[str, int], data: st.DataObject
) -> None:
    """For any size that occurs twice or is fixed, the message names the axis and has a caret under one of its sizes."""
    places = [(i, j) for i, words in enumerate(axes) for j, word in enumerate(words) if word in NAMES]
    fixed = data.draw(st.sets(names))
    twice = [(i, j) for i, j in places if axes[i][j] in fixed or sum(axes[i][j] == axes[m][n] for m, n in places) > 1]
    if not twice:
        return
    tensor, axis = data.draw(st.sampled_from(twice))
    made = [[size_of(word, sizes) for word in words] for words in axes]
    made[tensor][axis] += data.draw(st.integers(1, 3))
    text = ", ".join(map(" ".join, axes)) + " -> "
    stated = {
        name: sizes[name] for name in fixed if any(name in word.strip("()").split() for row in axes for word in row)
    }
    f = circuit(text, fixed=stated)(returns(torch.ones(())))
    with pytest.raises(ShapeError) as caught:
        f(*(empty(*each) for each in made))
    name = axes[tensor][axis]
    assert f"{name} is {sizes[name]} here, but" in str(
        caught.value
    ) or f"{name} is {made[tensor][axis]} here, but" in str(caught.value)
    assert f"{name} is" in names_at_carets(str(caught.value))
    with checks(False):
        f(*(empty(*each) for each in made))


def names_at_carets(message: str) -> str:
    """Return the lines that have carets below them, and check that each run of carets is under a whole number."""
    lines = message.split("\n")
    found = ""
    for line, marks in pairwise(lines):
        if marks and not marks.strip(" ^"):
            for start, stop in spans(marks):
                assert line[start:stop].isdigit(), message
                assert line[stop : stop + 1] in ("", " "), message
            found += line
    return found


def spans(marks: str) -> Iterator[tuple[int, int]]:
    """Yield the start and stop of each run of carets."""
    start = 0
    for run in marks.split(" "):
        if run:
            yield start, start + len(run)
        start += len(run) + 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 40))
def test_arithmetic_fits_as_python_computes_it(h: int, s: int, k: int, size: int) -> None:
    """One random size is checked against four terms; whether it fits is computed by Python's own arithmetic."""
    fit = {
        "h/s": h % s == 0 and size == h // s,
        "h*s+1": size == h * s + 1,
        "h-s": size == h - s,
        "(h/s k)": h % s == 0 and size == h // s * k,
    }
    for text, fits in fit.items():
        f = circuit(f"h, s, k, {text} -> ")(lambda h, s, k, x: torch.ones(()))
        arguments = [empty(each) for each in (h, s, k, size)]
        if fits:
            f(*arguments)
        else:
            with pytest.raises(ShapeError):
                f(*arguments)


def grammatical(rng: random.Random) -> str:
    """Return the text of a random signature, by the grammar."""

    def atom() -> str:
        return rng.choice([*NAMES, "3", "16"])

    def derived() -> str:
        return rng.choice(NAMES) + "".join(
            rng.choice("+-*/") + atom().replace("0", "1") for _ in range(rng.randint(1, 2))
        )

    def term() -> str:
        kind = rng.random()
        if kind < 0.15:
            return f"({' '.join(rng.choice([atom, derived])() for _ in range(rng.randint(1, 3)))})"
        return derived() if kind < 0.3 else atom()

    def tensor() -> str:
        return " ".join(["..."] * (rng.random() < 0.3) + [term() for _ in range(rng.randint(0, 4))])

    def side() -> str:
        return ", ".join(tensor() for _ in range(rng.randint(1, 3)))

    return f"{side()} -> {side()}"


def mutated(text: str, rng: random.Random) -> str:
    """Return the text with a few characters removed, doubled, inserted or moved."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + rng.choice("  ,()+-*/.'→hk3_" + string.printable) + text[at:]
        elif kind == 2:
            text = text[:at] + text[max(0, at - 3) :]
        else:
            other = rng.randrange(len(text) + 1)
            text = text[:at] + text[other : other + 2] + text[at:]
    return text


def parse_mutated(cases: range) -> float:
    """Parse many mutated texts and return the fraction that are valid signatures."""
    valid = 0
    for case in cases:
        rng = random.Random(case)
        text = mutated(grammatical(rng), rng)
        try:
            signature = Signature.parse(text)
        except SignatureError as error:
            assert_caret_is_under_the_fault(text, str(error))
        else:
            valid += 1
            assert Signature.parse(str(signature)) == signature, text
            assert str(Signature.parse(str(signature))) == str(signature), text
    return valid / len(cases)


def assert_caret_is_under_the_fault(text: str, message: str) -> None:
    """Check that the text before the caret is the beginning of a valid signature, and with the marked text is not."""
    _, quoted, marks = message.split("\n")
    assert marks.strip(" ^") == "", message
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    assert quoted.removeprefix("    ").rstrip() == printable[:100].rstrip() or "…" in quoted, message
    start, stop = marks.index("^") - 4, len(marks) - 4
    if "…" in quoted:
        return
    if start >= len(text.rstrip()):
        assert is_a_beginning(text), message
    elif "never closed" in message:
        assert text[start] == "(", message
        assert text[:start].count("(") == text[:start].count(")"), message
    else:
        assert is_a_beginning(text[:start]), message
        assert not is_a_beginning(text[:stop] + " "), message


def is_a_beginning(text: str) -> bool:
    """Return whether the text is a valid signature when one of a few endings is appended."""
    ends = ["", "h", ")", "h)", "->", " -> ", ") ->", "h ->", "h) ->", "> "]
    return any(parses(text + end) for end in ends)


def parses(text: str) -> bool:
    try:
        Signature.parse(text)
    except SignatureError:
        return False
    return True


def test_mutated_texts_are_parsed_or_refused() -> None:
    assert parse_mutated(range(4_000)) >= 0.3


@pytest.mark.every(1, 10)
@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_very_many_mutated_texts_are_parsed_or_refused(block: int) -> None:
    assert parse_mutated(range(block * 10_000, (block + 1) * 10_000)) >= 0.3


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert parses(text) in (True, False)
