"""Errors planted in placement rules, in sums of gradients and in hooks: comparing with the whole model catches each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from circuits import CircuitError, repeat
from circuits.sharding import between, gradients, hooks, one_axis, planner, rules
from models.parts import distributed_attention
from tests.sharding import test_between
from tests.sharding.test_plans import Scaled
from tests.sharding.test_shard import CASES, Case, compare, compare_bytes, inputs, process_group

__all__ = ["process_group"]  # a fixture that each test here uses

Plant = Callable[[pytest.MonkeyPatch], None]


def after(layer: nn.Module) -> nn.Module:
    """A layer after a linear map whose outputs are split."""
    return nn.Sequential(nn.Linear(8, 8), layer)


def split_outputs(layer: Callable[[], nn.Module]) -> Case:
    return lambda: after(layer()), lambda: (inputs(3, 8),), {"f": "tensor"}, {"names": {"0.weight": "f m"}}, {}


MORE: dict[str, Case] = {
    "softmax over an axis": split_outputs(lambda: nn.Softmax(-1)),
    "a norm of an axis": split_outputs(lambda: nn.LayerNorm(8)),
    "a whole parameter among parts": (Scaled, lambda: (inputs(3, 8),), {"h": "tensor"}, {}, {}),
    **test_between.MORE,
}
BETWEEN = "between the vocabulary and the layers"


def replaced(name: str, found: Callable[[rules.Step], list[Any]]) -> Plant:
    """Another placement rule."""
    return lambda patch: patch.setitem(rules.RULES, name, found)


def _rows_are_columns(step: rules.Step) -> list[Any]:
    found = rules.linear(step)
    return [len(step.inputs[0].axes) - 1] if found == [rules.PARTIAL] else found


def _next_axis(step: rules.Step) -> list[Any]:
    found: list[Any] = list(rules.einsum(step))
    return [each + 1 for each in found]


def _no_sum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(one_axis.OneAxis, "_sum", lambda self, place, value: None)


def _no_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "gradient_moves", lambda one: [])


def _bias_summed_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gradients, "is_split", lambda one, place: any(value.number in one.dims for value in place.box.inputs))


def _last_axis(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "moved", lambda step, value: [len(each.axes) - 1 for each in step.box.outputs])


def _parameter_not_summed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hooks, "_sum_gradient_of", lambda parameter: None)


def _sums_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hooks._SumOfGradients, "backward", staticmethod(lambda ctx, gradient: gradient))


def _bytes_of_the_whole(patch: pytest.MonkeyPatch) -> None:
    before = planner.Planner.bytes
    patch.setattr(planner.Planner, "bytes", lambda self, value, axes: before(self, value, axes) * 2)


def _not_gathered(patch: pytest.MonkeyPatch) -> None:
    before = hooks._placed
    patch.setattr(hooks, "_placed", lambda tensor, move: tensor if move.source == "split" else before(tensor, move))


def _sums_whole(patch: pytest.MonkeyPatch) -> None:
    before = hooks._placed
    patch.setattr(hooks, "_placed", lambda tensor, move: before(tensor, replace(move, dim=None)))


def _bytes_as_in_the_plan(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "sent_by", lambda move, axes: axes)


def _changes_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "change_moves", lambda one: [])


def _heads_of_other_groups(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributed_attention, "repeat", lambda tensor, _, n: repeat(tensor, "... g x k -> ... (n g) x k", n=n)
    )


def _gathered_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(between.Between, "is_changed", lambda self, place, number: False)


PLANTED: dict[str, tuple[Plant, str, Callable[[str], None]]] = {
    "rows of a weight are not summed": (_no_sum, "attention", compare),
    "rows of a weight are taken for columns": (
        replaced("linear", _rows_are_columns), "hidden units of an MLP", compare_bytes
    ),
    "columns of a weight give a whole result": (
        replaced("linear", lambda step: step.all(None)), "classes of an MLP", compare
    ),
    "an axis that einsum keeps is taken for the next": (
        replaced("einsum", _next_axis), "attention", compare
    ),
    "elementwise operations along the first axis": (
        replaced("broadcasting", lambda step: step.all(0)), "attention", compare
    ),
    "softmax over an axis of which each rank has a part": (
        replaced("softmax", lambda step: step.all(step.dim(0))), "softmax over an axis", compare
    ),
    "a norm of an axis of which each rank has a part": (
        replaced("layer_norm", lambda step: step.all(step.dim(0))), "a norm of an axis", compare
    ),
    "rows of a table are not summed": (
        replaced("embedding", lambda step: step.all(None)), "a language model and its vocabulary", compare
    ),
    "an axis that is moved is taken for the last": (_last_axis, "attention", compare),
    "gradients are not summed": (_no_gradients, "classes of an MLP", compare),
    "planned sums of gradients are not run": (_sums_forgotten, "classes of an MLP", compare_bytes),
    "the gradient of a parameter is not summed": (
        _parameter_not_summed, "a whole parameter among parts", compare_bytes
    ),
    "the gradient of a bias is summed twice": (_bias_summed_twice, "attention with biases", compare_bytes),
    "bytes of two tensors for one": (_bytes_of_the_whole, "attention", compare_bytes),
    "a module that needs the whole is given a part": (_not_gathered, BETWEEN, compare),
    "sums are added up whole, and are parts in the plan": (_sums_whole, BETWEEN, compare_bytes),
    "the bytes of a sum are those of its part": (_bytes_as_in_the_plan, BETWEEN, compare_bytes),
    "where tensors are gathered is forgotten": (_changes_forgotten, BETWEEN, compare),
    "heads of keys of other groups": (_heads_of_other_groups, "groups that are whole on all ranks", compare),
    "gradients of what is gathered are summed again": (_gathered_twice, "after a table of positions", compare_bytes),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in MORE.items():
        monkeypatch.setitem(CASES, *case)
    plant, case, check = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, CircuitError)) as caught:
        check(case)
    assert not isinstance(caught.value, NotImplementedError)


@pytest.mark.parametrize("check", [compare, compare_bytes])
def test_a_whole_parameter_among_parts_without_an_error(
    check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "a whole parameter among parts", MORE["a whole parameter among parts"])
    check("a whole parameter among parts")


@pytest.mark.parametrize("name", ["softmax over an axis", "a norm of an axis"])
def test_what_reads_across_parts_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, name, MORE[name])
    with pytest.raises(CircuitError, match="it reads across"):
        compare(name)
