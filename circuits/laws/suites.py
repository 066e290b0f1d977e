"""`suite`: every law that a circuit's signature promises, as one test of pytest."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuits.checking import find_circuit
from circuits.errors import CircuitError
from circuits.laws.backward_circuit import backward_by_hand
from circuits.laws.dependence import causal, independent
from circuits.laws.equality import compiles, equals, gradcheck, kernel
from circuits.laws.equivariance import equivariant, shifting
from circuits.laws.linearity import linear, multilinear
from circuits.laws.output_shapes import broadcasting, shapes
from circuits.laws.subject import DoesNotApply, Sizes, Source

Law = Callable[..., None]

PROMISED: tuple[Law, ...] = (shapes, broadcasting, independent, kernel, gradcheck, compiles)
"""What the signature alone promises: `...` is any axes, a kernel is its definition, and the rest is so for all code."""

CLAIMED: tuple[Law, ...] = (linear, multilinear, equivariant, causal, shifting, equals)
"""What only its author knows of a circuit."""

BY_HAND = {"backward_rule": backward_by_hand}
"""What is held of what somebody wrote; where nobody did, `backward` derives it, and that is for our own tests."""


def suite(
    target: Any,
    /,
    *,
    also: Sequence[Law] = (),
    without: Mapping[str, str] | None = None,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Callable[..., None]:
    """One parametrised test, a case for each law: `test_my_block = laws.suite(MyBlock, m=8, k=4)`.

    A class, or another function that makes circuits, is called with the arguments in each case; a circuit gets them in
    every call. `also` are laws that are no promise of the signature, as
    `also=[partial(laws.causal, axis="x"), laws.multilinear]`; a law without an axis or an argument may stand there as
    it is. What is not claimed, and what does not apply, is skipped with its reason; `without={"compiles": "why"}`
    skips a law with yours. `sizes`, `inputs` and `seed` go to every law. Raises CircuitError without pytest.

    >>> from circuits import circuit
    >>> test_total = suite(circuit("a -> ")(lambda x: x.sum()), also=[multilinear])
    """
    try:
        import pytest
    except ImportError as error:
        raise CircuitError("laws.suite makes tests for pytest, which is not installed") from error
    cases = _cases(also)
    for name in without or {}:
        if name not in cases:
            raise CircuitError(f"laws.suite: there is no case {name} to leave out; there are {', '.join(cases)}")
    makes = find_circuit(target) is None or isinstance(target, type)
    if makes and not callable(target):
        raise CircuitError(f"laws.suite takes a circuit, or what makes one, not {target!r}")

    @pytest.mark.parametrize("law", cases.values(), ids=cases)
    def test(law: Law | str) -> None:
        """One law of the suite."""
        name = next(name for name, each in cases.items() if each is law)
        reason = (without or {}).get(name, law if isinstance(law, str) else "")
        if reason:
            pytest.skip(reason)
        f = target(**arguments) if makes else target
        try:
            law(f, sizes=sizes, inputs=inputs, seed=seed, **({} if makes else arguments))  # pyright: ignore
        except DoesNotApply as error:
            pytest.skip(f"{error}")

    return test


def _cases(also: Sequence[Law]) -> dict[str, Law | str]:
    """The laws by what they are called, and for a law that nobody claims why it is left out."""
    cases: dict[str, Law | str] = {**{law.__name__: law for law in PROMISED}, **BY_HAND}
    for law in also:
        cases[_called(law, cases)] = law
    claimed = {_plain(law).__name__ for law in also}
    for law in CLAIMED:
        if law.__name__ not in claimed:
            cases[law.__name__] = f"no signature promises it; to claim it, also=[laws.{law.__name__}]"
    return cases


def _plain(law: Law) -> Any:
    return law.func if isinstance(law, functools.partial) else law


def _called(law: Law, taken: Mapping[str, Any]) -> str:
    """`causal(x)`, and a number where that is taken."""
    said = [*law.args, *law.keywords.values()] if isinstance(law, functools.partial) else []
    words = ", ".join([each if isinstance(each, str) else getattr(each, "__name__", f"{each}") for each in said])
    name = f"{getattr(_plain(law), '__name__', 'law')}{f'({words})' if words else ''}"
    return name if name not in taken else f"{name} {len(taken)}"
