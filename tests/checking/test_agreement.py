"""The quick check and the complete check agree, and accept exactly what some sizes explain, sizes of 0 included.

Whether sizes explain the shapes of a call is found by trying all small sizes.
"""

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from circuits import ShapeError, SignatureError, circuit
from circuits.checking import runtime
from circuits.checking.messages import examine

NAMES = "abc"
TERMS = [*NAMES, *NAMES, "(a b)", "(b c)", "(a b c)", "(a 2)", "(a/2 b)", "a/2", "2*b", "a*c", "a/b", "a+b", "c-1", "3"]
TRIED = 13
"""Sizes up to here are tried; those of the tensors are at most 3, and at most 12 as sizes of groups."""


class Case:
    """A random circuit with two inputs, an optional tensor and an output, and shapes for one call.

    Ten cases have the same circuit.
    """

    def __init__(self, number: int) -> None:
        rng = random.Random(number // 10)
        self.inputs = [rng.choices(TERMS, k=rng.randint(1, 3)) for _ in range(2)]
        self.optional = rng.choices(TERMS, k=rng.randint(1, 2))
        self.output = rng.choices(TERMS, k=rng.randint(0, 2))
        rng = random.Random(number)
        sizes = {name: rng.choice([0, 0, 1, 2, 3]) for name in NAMES}
        is_passed, wrong = rng.random() < 0.5, rng.random() < 0.5
        self.shapes = [
            None if words is self.optional and not is_passed else [size_of(word, sizes) or 0 for word in words]
            for words in self.tensors
        ]
        self.fits = all(
            size_of(word, sizes) is not None
            for words, shape in zip(self.tensors, self.shapes, strict=True)
            for word in words[: len(shape or ())]
        )
        if wrong:
            shape = rng.choice([shape for shape in self.shapes if shape])
            shape[rng.randrange(len(shape))] = rng.randint(0, 3)
            self.fits = False

    @property
    def tensors(self) -> list[list[str]]:
        return [*self.inputs, self.optional, self.output]

    def circuit(self) -> Any:
        text = f"{', '.join(' '.join(words) for words in self.inputs)} -> {' '.join(self.output)}"
        return declared(text, " ".join(self.optional))

    def is_explained(self) -> bool:
        """Return whether any sizes of the names give the shapes."""
        shaped = [(words, shape) for words, shape in zip(self.tensors, self.shapes, strict=True) if shape]
        pairs = {pair for words, shape in shaped for pair in zip(words, shape, strict=True)}
        tables = [[found == size for found in all_sizes_of(word)] for word, size in pairs]
        return any(map(all, zip(*tables, strict=True)))


@functools.cache
def declared(text: str, optional: str) -> Any:
    """Return a circuit that returns its last argument, or None if the signature is refused."""
    try:
        return circuit(text, optional={"mask": optional})(lambda left, right, mask=None, *, returned: returned)
    except SignatureError:
        return None


@functools.cache
def all_sizes_of(word: str) -> list[int | None]:
    """Return the size of a word for every choice of small sizes of the names."""
    tried = itertools.product(range(TRIED), repeat=len(NAMES))
    return [size_of(word, dict(zip(NAMES, sizes, strict=True))) for sizes in tried]


def size_of(word: str, sizes: dict[str, int]) -> int | None:
    """Return the size of a word, by Python's own arithmetic; None if it is not a whole number of at least 0."""
    total = 1
    for part in word.strip("()").split():
        try:
            found = eval(compiled(part), {}, sizes)
        except ZeroDivisionError:
            return None
        if found < 0 or found != int(found):
            return None
        total *= int(found)
    return total


@functools.cache
def compiled(part: str) -> Any:
    return compile(part, part, "eval")


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that the quick check has refused, or that have no quick check."""
    calls: list[Any] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any) -> Any:
            calls.append(args)
            return function(*args)

        return count

    for name in ("_complete_call", "_examine_untraced"):
        monkeypatch.setattr(runtime, name, counted(getattr(runtime, name)))
    return calls


def raises(function: Callable[..., Any], *args: Any) -> bool:
    """Return whether the call raises ShapeError; any other error is a fault of the check."""
    try:
        function(*args)
    except ShapeError:
        return True
    return False


def assert_both_checks_agree(case: Case, completed: list[Any]) -> str:
    """Return which check accepted the call, "quick" or "complete", or "" if it was refused or has no signature."""
    tensors = [None if shape is None else torch.empty(shape, device="meta") for shape in case.shapes]
    *given, returned = tensors
    f = case.circuit()
    if f is None:
        return ""
    before = len(completed)
    refused = raises(functools.partial(f, returned=returned), *given)
    by_complete_check = raises(examine, f.circuit, None, tuple(given), [returned])
    text = f"{f.circuit.title}, {case.optional}, {case.shapes}"
    assert refused == by_complete_check, text
    if case.fits:
        assert not refused, text
    if refused:
        assert not case.is_explained(), text
        return ""
    return "quick" if len(completed) == before else "complete"


@pytest.mark.slow
def test_random_calls(completed: list[Any]) -> None:
    accepted = [assert_both_checks_agree(Case(number), completed) for number in range(400)]
    assert accepted.count("quick") > 30
    assert accepted.count("complete") > 30


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_very_many_random_calls(block: int, completed: list[Any]) -> None:
    for number in range(1_000 * block, 1_000 * (block + 1)):
        assert_both_checks_agree(Case(number), completed)


@pytest.mark.parametrize("shapes", [[(0, 0)], [(0, 0), (2,)], [(0, 0), (0,)], [(2, 6), (3,)]])
def test_any_size_fits_beside_an_axis_of_size_0(shapes: list[tuple[int, ...]]) -> None:
    """An empty batch is a batch."""

    @circuit("b (b c) -> b", optional={"m": "c"})
    def f(x: Tensor, m: Tensor | None = None) -> Tensor:
        return x.sum(1)

    assert f(*map(torch.ones, shapes)).shape == shapes[0][:1]


def test_a_size_beside_0_becomes_known_from_another_tensor() -> None:
    f = circuit("b (b c), (b c d) -> c d")(lambda x, y: torch.ones(2, 3))
    assert f(torch.ones(0, 0), torch.ones(0)).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"\(b c\) is 5 here, so c is not a whole number: b is 0"):
        f(torch.ones(0, 5), torch.ones(0))
    with pytest.raises(ShapeError, match=r"\(b c d\) is 5 here, so \(c d\) is not a whole number: b is 0"):
        f(torch.ones(0, 0), torch.ones(5))


def test_a_divisor_is_not_0() -> None:
    f = circuit("n, n/c -> c")(lambda x, y: torch.ones(0))
    with pytest.raises(ShapeError, match="n/c is 5 here, so c is not a whole number: n is 0"):
        f(torch.ones(0), torch.ones(5))
