# For pyright a leaf may be a Scalar, which has no number.
# pyright: reportAttributeAccessIssue=false
"""Descriptions of nested values: `fill` restores the value, and `bind` reports where a value does not match."""

import collections
import dataclasses
import inspect
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits import CircuitError
from circuits.diagram.call_arguments import arguments, without_defaults
from circuits.diagram.structure import Scalar, Struct, Wire, bind, describe, fill, leaves, map_tensors, tensors, wires


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Note:
    value: Any
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Sealed:
    value: Any


class Output(collections.OrderedDict[str, Any]):
    """A subclass of OrderedDict, such as the outputs of well-known model libraries."""


X = torch.ones(1)
NAMES = st.sampled_from(["x", "y", "z"])
TENSORS = st.builds(torch.ones, st.integers(0, 3))
CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just(torch.float32))
VALUES = st.recursive(
    TENSORS | CONSTANTS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(NAMES, inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3).map(collections.OrderedDict),
        st.dictionaries(NAMES, inner, max_size=3).map(Output),
        st.builds(Pair, inner, inner),
        st.builds(Note, inner),
        st.builds(Sealed, inner),
        st.builds(slice, inner, inner),
    ),
    max_leaves=8,
)


def alike(one: Any, other: Any) -> bool:
    """Return whether two values have the same types at every level, and identical tensors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one is other
    if dataclasses.is_dataclass(one):
        return alike(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, slice):
        return alike((one.start, one.stop, one.step), (other.start, other.stop, other.step))
    return bool(one == other)


def numbered(value: Any) -> tuple[Any, list[Tensor]]:
    """Return the description of a value, and its tensors in the order of their wires."""
    found: list[Tensor] = []

    def wire(tensor: Tensor) -> Wire:
        found.append(tensor)
        return Wire(len(found) - 1)

    return describe(value, wire), found


@given(VALUES)
def test_fill_restores_the_described_value(value: Any) -> None:
    description, found = numbered(value)
    filled = fill(description, lambda wire: found[wire.number], lambda scalar: scalar.expression)
    assert alike(filled, value)
    assert wires(description) == tuple(range(len(found)))
    assert [leaf.number for leaf in leaves(description)] == list(range(len(found)))
    assert all(mine is other for mine, other in zip(tensors(value), found, strict=True))


@given(VALUES)
def test_a_description_has_no_tensors_and_bind_finds_those_of_the_value(value: Any) -> None:
    description, found = numbered(value)
    assert not tensors(description)
    bound: dict[Any, Any] = {}
    bind(description, value, bound)
    assert list(bound) == list(range(len(found)))
    assert all(bound[place] is tensor for place, tensor in enumerate(found))


@given(VALUES)
def test_map_tensors_changes_only_the_tensors(value: Any) -> None:
    changed = map_tensors(value, lambda tensor: tensor + 1)
    assert [each.sum().item() for each in tensors(changed)] == [2 * each.numel() for each in tensors(value)]
    assert alike(numbered(map_tensors(changed, lambda tensor: tensor))[0], numbered(value)[0])


def test_named_tuples_of_torch_are_rebuilt() -> None:
    best = torch.ones(2, 3).max(1)
    description, found = numbered(best)
    again = fill(description, lambda wire: found[wire.number], lambda scalar: scalar)
    assert type(again) is type(best)
    assert again.indices is best.indices


def test_numbers_that_depend_on_sizes_are_scalars() -> None:
    description = Struct(tuple, (), (Wire(0), Scalar("h"), 3))
    bound: dict[Any, Any] = {}
    bind(description, (torch.ones(1), 8, 3), bound)
    assert bound["h"] == 8
    assert fill(description, lambda wire: "x", lambda scalar: scalar.expression * 2) == ("x", "hh", 3)


@pytest.mark.parametrize(
    ("recorded", "passed", "message"),
    [
        (torch.ones(1), 3, "the call: expected a tensor, got 3"),
        ((torch.ones(1), 2.0), (torch.ones(1), 3.0), "the call[1]: the diagram was recorded with 2.0, got 3.0"),
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}, "the call: expected dict with a, got dict with b"),
        ({"a": [torch.ones(1)]}, {"a": []}, "the call.a: expected list of length 1, got list of length 0"),
        (Pair(X, 3), Pair(X, None), "the call.right: the diagram was recorded with 3, got None"),
        (Note(torch.ones(1)), torch.ones(1), "the call: expected Note with value, text, got a tensor of shape (1,)"),
    ],
)  # fmt: skip
def test_the_error_names_the_part_that_does_not_match(recorded: Any, passed: Any, message: str) -> None:
    with pytest.raises(CircuitError) as caught:
        bind(numbered(recorded)[0], passed, {})
    assert str(caught.value).startswith(message)


def every_kind(a: Any, /, b: Any, *rest: Any, c: Any = 3, **others: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((1, 2), {}, {"a": 1, "b": 2, "c": 3}),
        ((1,), {"b": 2}, {"a": 1, "b": 2, "c": 3}),
        ((1, 2, 4, 5), {"c": 6, "d": 7}, {"a": 1, "b": 2, "rest.0": 4, "rest.1": 5, "c": 6, "d": 7}),
    ],
)
def test_arguments_have_the_names_of_their_parameters(args: Any, kwargs: Any, named: dict[str, Any]) -> None:
    assert arguments(args, kwargs, inspect.signature(every_kind)) == named


def test_arguments_without_a_python_signature_are_numbered() -> None:
    assert arguments((1, 2), {"c": 3}, None) == {"0": 1, "1": 2, "c": 3}


def test_arguments_that_do_not_fit_raise_the_error_of_python() -> None:
    with pytest.raises(TypeError, match="missing"):
        arguments((), {}, inspect.signature(every_kind))


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (lambda a, b=2, /, c=3: None, (1, 2, 3), {}, ((1,), {})),
        (lambda a, b=2, /, c=3: None, (1, 2, 4), {}, ((1,), {"c": 4})),
        (lambda a=1, b=2, /, c=3: None, (1, 5, 3), {}, ((1, 5), {})),
        (lambda a=1, /, b=2, c=3: None, (7, 2, 4), {}, ((7,), {"c": 4})),
        (lambda a=1, /, b=2, *rest: None, (1, 2, 4), {}, ((1, 2, 4), {})),
        (lambda a=1, /, **others: None, (7,), {"a": 1}, ((7,), {"a": 1})),
    ],
)
def test_arguments_without_defaults_bind_to_the_same_parameters(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    signature = inspect.signature(function)
    less, named = without_defaults(signature.parameters.values(), args, kwargs)
    assert (less, named) == expected
    whole, again = signature.bind(*args, **kwargs), signature.bind(*less, **named)
    whole.apply_defaults()
    again.apply_defaults()
    assert whole.arguments == again.arguments
