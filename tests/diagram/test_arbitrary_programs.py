"""Diagrams and backward diagrams of random programs compute what the programs compute, at any numbers, or refuse.

The programs do what other people's code does (`programs.KINDS`): views, changes in place, copies, numbers read from
data, questions about a tensor, state in modules and containers, modes, and all of these together. By hand, with more
programs: `PROGRAMS=10000 pytest -m slow tests/diagram/test_arbitrary_programs.py`.
"""

import copy
import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from circuits import CircuitError, Diagram, backward, trace, track
from tests.diagram.programs import KINDS, PURE, STEPS, Program

Plan = list[tuple[str, int, int]]
ROWS, WIDTH = 3, 4
COUNT = int(os.environ.get("PROGRAMS", "1000"))
REFUSED: Any = object()
"""What stands for the result of a run that a CircuitError refused."""


class InvalidError(Exception):
    """The program itself cannot run."""


def inputs(seed: int, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Return the arguments of a program: two tensors, and a dict that holds a tensor and a list."""
    random = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, ROWS, WIDTH, generator=random, dtype=dtype).unbind()
    return [x.clone(), y.clone(), {"y": torch.zeros(ROWS, WIDTH, dtype=dtype), "list": []}]


def everything(module: Program) -> dict[str, Any]:
    """Return the state of a program's module, also what is neither parameter nor buffer."""
    others = {name: getattr(module, name) for name in ("steps", "history", "cache", "constant")}
    return {**module.state_dict(), **others, "generator": module.generator.get_state()}


def agree(one: Any, other: Any) -> bool:
    """Return whether two results hold equal tensors (up to rounding) and equal values, and no fake tensor."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(agree(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(agree, one, other))
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and not isinstance(other, FakeTensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and torch.allclose(one, other, 1e-5, 1e-6, equal_nan=True)  # a step of a trace may be another kernel
        )
    return bool(one == other)


def run(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call, its random numbers seeded, or REFUSED; other exceptions propagate."""
    torch.manual_seed(5)
    random.seed(6)
    np.random.seed(7)
    try:
        return function(*args)
    except CircuitError:
        return REFUSED


def original(module: Program, args: list[Any]) -> Any:
    """Return the result of the program itself."""
    try:
        return run(module, *args)
    except Exception as error:
        raise InvalidError from error


def made(plan: Plan, **options: Any) -> Program:
    """Return the module of a program; always the same for one plan."""
    torch.manual_seed(1)
    return Program(plan, WIDTH, **options)


def may_be_refused(plan: Plan) -> bool:
    """Return whether a program has steps other than pure ones, some of which a diagram cannot follow."""
    return any(name not in PURE for name, *_ in plan)


def traced(module: Program, seed: int) -> Any:
    """Return the diagram of `trace`, which changes neither the module nor its arguments nor the random numbers."""
    before, args, given = copy.deepcopy(everything(module)), inputs(seed), inputs(seed)
    original(copy.deepcopy(module), inputs(seed))
    diagram = run(trace, module, *args)
    assert agree(everything(module), before)
    assert agree(args, given)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(5).get_state())
    return diagram


def tracked(module: Program, seed: int) -> Diagram:
    """Return the diagram of `track`, under which the program computes and changes what it does alone."""
    alone, args, given = copy.deepcopy(module), inputs(seed), inputs(seed)
    expected = original(alone, given)
    with track(module, to=None) as seen:
        result = run(module, *args)
    assert agree(result, expected)
    assert agree(everything(module), everything(alone))
    assert agree(args, given)
    return seen.diagram


def check_diagram(record: Callable[[Program, int], Any], plan: Plan, seed: int, other: int) -> None:
    """Assert that a diagram recorded at the numbers of one seed equals the program at those of another, or refuses."""
    module = made(plan)
    diagram = record(module, seed)
    if diagram is REFUSED:
        assert may_be_refused(plan)
        return
    alone, args, given = copy.deepcopy(module), inputs(other), inputs(other)
    expected = original(alone, given)
    result = run(diagram, *args)
    assert result is not REFUSED or may_be_refused(plan)
    if result is not REFUSED:
        assert agree(result, expected)
        assert agree(args, given)
        assert agree(everything(module), everything(alone))


def check_backward(plan: Plan, seed: int, other: int) -> None:
    """Assert that the backward circuit made at the numbers of one seed equals autograd at those of another."""
    module, alone = made(plan, whole=False).double(), made(plan, whole=False).double()
    x, y, rest = inputs(other, torch.float64)
    sources = {"x": x.clone().requires_grad_(), "y": y.clone().requires_grad_()}
    result = original(alone, [*[each * 1 for each in sources.values()], copy.deepcopy(rest)])
    wanted = {**sources, **dict(alone.named_parameters())}
    if not result.requires_grad:
        return
    try:
        expected = torch.autograd.grad(result, list(wanted.values()), allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        raise InvalidError from error
    circuit = run(backward, module, *inputs(seed, torch.float64))
    gradients = REFUSED if circuit is REFUSED else run(circuit, x, y, rest, torch.ones((), dtype=torch.float64))
    assert gradients is not REFUSED or may_be_refused(plan)
    if gradients is not REFUSED:
        for name, gradient in zip(wanted, expected, strict=True):
            assert agree(gradients.get(name, torch.zeros_like(gradient)), gradient), name


def check(plan: Plan, seed: int, other: int, enabled: bool) -> None:
    """Check the diagrams of one program, recorded at the numbers of one seed and run at those of another."""
    with torch.set_grad_enabled(enabled), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_diagram(traced, plan, seed, other)
            check_diagram(tracked, plan, seed, other)
            if enabled:
                check_backward(plan, seed, other)
        except InvalidError:
            pass


def plans(kind: str) -> st.SearchStrategy[Plan]:
    """Return random plans of steps of one kind, among pure ones."""
    names = st.sampled_from([*KINDS[kind], *PURE])
    return st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6)


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_each_step_alone(name: str) -> None:
    check([(name, 2, 3)], 0, 1, True)
    check([(name, 3, 1)], 0, 0, False)


@pytest.mark.every(1, 4)
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_diagrams_of_programs_are_right_or_refuse(kind: str) -> None:
    seeds = st.integers(0, 3)
    settings(max_examples=-(-COUNT // len(KINDS)))(given(plans(kind), seeds, seeds, st.booleans())(check))()
