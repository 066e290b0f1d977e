"""`suite`: the laws that a circuit's signature implies, and laws that the caller adds, as one pytest test."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuits.checking import Circuit, find_circuit, has_rest
from circuits.errors import CircuitError, described, entry_point
from circuits.laws.backward_circuit import custom_backward_rule
from circuits.laws.dependence import causal, independent
from circuits.laws.derivatives import gradcheck
from circuits.laws.equality import compiles, equals
from circuits.laws.equivariance import equivariant, shifting
from circuits.laws.inputs import Source
from circuits.laws.kernels import kernel
from circuits.laws.lifting import broadcasting
from circuits.laws.linearity import linear, multilinear
from circuits.laws.output_shapes import shapes
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject

Law = Callable[..., None]

IMPLIED: tuple[Law, ...] = (shapes, broadcasting, independent, kernel, gradcheck, compiles)
"""The laws that a signature implies (`...` may be any axes, a kernel equals its definition) or all circuits obey."""

OPTIONAL: tuple[Law, ...] = (linear, multilinear, equivariant, causal, shifting, equals)
"""The laws that do not follow from a signature: there is a case only if `also` lists them."""

CUSTOM = {"backward_rule": custom_backward_rule}
"""The law of custom backward circuits, by its public name; this library's own tests check derived ones."""


@entry_point
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
    """Return one pytest test with a case for each law: `test_my_block = laws.suite(MyBlock, m=8, k=4)`.

    There is no case for a law that neither the signature implies nor `also` lists. A law that turns out not to apply is
    skipped with a reason. If the circuit cannot be called with the inputs that laws make (it takes integers, say), the
    first case fails, and the others are skipped.

    Args:
        target: A circuit; or a class or function that returns one, which is called with the arguments in each case.
        also: Laws that the signature does not imply, such as `also=[partial(laws.causal, axis="x"), laws.multilinear]`;
            a law that needs no argument may be listed as it is.
        without: Cases to skip, with the reason of each, such as `without={"compiles": "slow"}`.
        sizes, inputs, seed: Passed to every law, see `circuits.laws`.
        arguments: Keyword arguments of `target` if it makes the circuit; otherwise of every call of the circuit.

    Returns:
        The test, to be assigned to a name that begins with `test_`.

    Raises:
        CircuitError: pytest is not installed, a key of `without` is not a case, or `target` is not callable.

    >>> from circuits import circuit
    >>> test_total = suite(circuit("a -> ")(lambda x: x.sum()), also=[multilinear])
    """
    try:
        import pytest
    except ImportError as error:
        raise CircuitError("laws.suite makes tests for pytest, which is not installed") from error
    cases = _cases(also, _circuit_of(target))
    possible = dict.fromkeys([*cases, *[law.__name__ for law in (*IMPLIED, *OPTIONAL)]])
    for name in without or {}:
        if name not in possible:
            raise CircuitError(f"laws.suite: without has the key {name}; possible keys are {', '.join(possible)}")
    first = next((name for name in cases if name not in (without or {})), None)
    is_factory = find_circuit(target) is None or isinstance(target, type)
    if is_factory and not callable(target):
        raise CircuitError(f"laws.suite takes a circuit or a function that returns one, not {described(target)}")

    @pytest.mark.parametrize("law", cases.values(), ids=cases)
    def test(law: Law) -> None:
        """Run one law of the suite."""
        name = next(name for name, each in cases.items() if each is law)
        if name in (without or {}):
            pytest.skip((without or {})[name])
        f = target(**arguments) if is_factory else target
        options = {"sizes": sizes, "inputs": inputs, "seed": seed, **({} if is_factory else arguments)}
        try:
            _run_first(law, f, options) if name == first else _run_later(law, f, options, first)
        except DoesNotApply as error:
            pytest.skip(f"{error}")

    return test


def _run_first(law: Law, f: Any, options: Mapping[str, Any]) -> None:
    """Run the law of the first case; if the circuit cannot be called at all, this case fails."""
    _call_once(f, **options)
    law(f, **options)


def _run_later(law: Law, f: Any, options: Mapping[str, Any], first: str | None) -> None:
    """Run the law of any other case; raise DoesNotApply if the circuit cannot be called at all."""
    try:
        law(f, **options)
    except Exception as error:
        try:
            _call_once(f, **options)
        except Exception:
            raise DoesNotApply(f"the circuit cannot be called: see why in the case {first}") from error
        raise


def _call_once(f: Any, sizes: Sizes | None, inputs: Mapping[str, Source] | None, seed: int, **arguments: Any) -> None:
    """Call the circuit once, as the laws do."""
    subject = Subject("suite", f, sizes, inputs, seed, arguments)
    subject(subject.tensors())


def _circuit_of(target: Any) -> Circuit | None:
    """Return the declaration of a circuit, or of the forward of a class; None if only a call of `target` tells it."""
    return find_circuit(getattr(target, "forward", None) if isinstance(target, type) else target)


def _cases(also: Sequence[Law], circuit: Circuit | None) -> dict[str, Law]:
    """Return the laws by name of the case, without those that cannot apply to the signature."""
    cases: dict[str, Law] = {**{law.__name__: law for law in IMPLIED}, **CUSTOM}
    if circuit is not None and not all(
        any(has_rest(each.axes) for each in side) for side in (circuit.slots, circuit.results)
    ):
        del cases[independent.__name__]
    for law in also:
        cases[_case_name(law, cases)] = law
    return cases


def _law_function(law: Law) -> Any:
    """Return a law, or the function of a law that is a partial."""
    return law.func if isinstance(law, functools.partial) else law


def _case_name(law: Law, taken: Mapping[str, Any]) -> str:
    """Return the name of a case, such as `causal(x)`, with a number if that name is taken."""
    values = [*law.args, *law.keywords.values()] if isinstance(law, functools.partial) else []
    texts = ", ".join([each if isinstance(each, str) else getattr(each, "__name__", f"{each}") for each in values])
    name = f"{getattr(_law_function(law), '__name__', 'law')}{f'({texts})' if texts else ''}"
    return name if name not in taken else f"{name} {len(taken)}"
