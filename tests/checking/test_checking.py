"""Checked circuits: error messages, binding of arguments, kernels, switches, and module instances with a signature."""

import copy
import dataclasses
import functools
import gc
import inspect
import io
import linecache
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torch.nn import functional as F

from circuits import (
    CircuitError,
    ShapeError,
    SignatureError,
    check,
    checks,
    circuit,
    definitions,
    find_circuit,
    kernel_of,
)
from circuits.checking.circuit import fixed_sizes
from circuits.checking.runtime import leaves


@circuit("... y k, ... x k, ... x k -> ... y k", optional={"mask": "... y x"})
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return for each of y queries the sum of the x values, weighted by the softmax of the scores with the keys."""
    score = query @ key.mT * key.shape[-1] ** -0.5
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ value


class MultiHeadAttention(nn.Module):
    def __init__(self, m: int, k: int, h: int) -> None:
        super().__init__()
        self.m, self.k, self.h = m, k, h
        self.mix = nn.Linear(m, m)

    @circuit("... y m, ... x m -> ... y m", fixed="m")
    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        return self.mix(target) + source.mean(-2, keepdim=True)


@circuit("... (h k), k -> ... h")
def heads(joined: Tensor, weight: Tensor) -> Tensor:
    return joined.unflatten(-1, (-1, weight.shape[0])) @ weight


@circuit("b c h w -> b 2*c h/2 w/2")
def down(image: Tensor) -> Tensor:
    return F.max_pool2d(image, 2).repeat(1, 2, 1, 1)


@circuit("b 3 h w -> b h w", multiples={"h": 16, "w": 16})
def grey(image: Tensor) -> Tensor:
    return image.mean(1)


@circuit("n, v c -> n c", dtypes={"tokens": torch.long})
def embed(tokens: Tensor, table: Tensor) -> Tensor:
    return table[tokens]


@circuit("a, a -> ")
def inner(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@circuit(", a -> a")
def scale(by: Tensor | float, x: Tensor) -> Tensor:
    return by * x


@circuit("y, y -> y, y")
def swap(left: Tensor, right: Tensor) -> Any:
    return right, left


@circuit("y -> 2*y, y")
def wrong(x: Tensor) -> Any:
    return x, x[:-1]


@circuit("y -> y, y")
def short(x: Tensor) -> Any:
    return [x]


@circuit("y -> y")
def listed(x: Tensor) -> Any:
    return [x]


@circuit("a, a, a -> a")
def add(first: Tensor, *others: Tensor) -> Tensor:
    return sum(others, first)


@circuit("(h k), (k h) -> ")
def open_groups(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@circuit("h, (h/2 k) -> k")
def half_groups(h: Tensor, x: Tensor) -> Tensor:
    return x.view(h.shape[0] // 2, -1).sum(0)


class Holder:
    def __init__(self, **held: object) -> None:
        self.__dict__.update(held)

    @circuit("y m -> y", fixed={"m": "size"}, multiples={"m": 4})
    def total(self, x: Tensor) -> Tensor:
        return x.sum(-1)


def ones(*sizes: int) -> Tensor:
    return torch.ones(sizes)


MISTAKES: dict[str, Callable[[], object]] = {
    "two_sizes": lambda: inner(ones(3), ones(4)),
    "fixed": lambda: MultiHeadAttention(128, 16, 4)(ones(20, 128), ones(22, 64)),
    "size_one": lambda: attention(ones(5, 8), ones(7, 1), ones(7, 1)),
    "several_at_once": lambda: attention(ones(2, 5, 8), ones(3, 7, 9), ones(3, 7, 8), ones(5, 6) > 0),
    "number": lambda: grey(ones(2, 4, 16, 16)),
    "multiples": lambda: grey(ones(2, 3, 20, 16)),
    "too_few_axes": lambda: down(ones(3, 32, 32)),
    "too_few_for_the_rest": lambda: attention(ones(8), ones(7, 8), ones(7, 8)),
    "no_axes": lambda: inner(ones(), ones(3)),
    "group_does_not_divide": lambda: heads(ones(2, 65), ones(16)),
    "group_known": lambda: heads_known(ones(2, 65), ones(4), ones(16)),
    "open_groups": lambda: open_groups(ones(64), ones(65)),
    "arithmetic_in_a_group": lambda: half_groups(ones(8), ones(13)),
    "not_whole": lambda: down(ones(2, 3, 33, 32)),
    "dtype": lambda: embed(ones(5), ones(10, 4)),
    "a_list": lambda: attention([[1.0, 2.0], [3.0, 4.0]], ones(7, 2), ones(7, 2)),  # type: ignore[arg-type]
    "tensors_in_a_list": lambda: inner([ones(3), ones(3)], ones(3)),  # type: ignore[arg-type]
    "a_numpy_array": lambda: inner(np.ones(3, dtype=np.float32), ones(3)),  # type: ignore[arg-type]
    "none": lambda: inner(None, ones(3)),  # type: ignore[arg-type]
    "a_number_for_a_tensor": lambda: inner(2.0, ones(3)),  # type: ignore[arg-type]
    "a_tensor_for_a_scalar": lambda: scale(ones(2), ones(2)),
    "text_for_a_scalar": lambda: scale("2", ones(2)),  # type: ignore[arg-type]
    "rest": lambda: attention(ones(2, 4, 5, 8), ones(2, 3, 7, 8), ones(2, 3, 7, 8)),
    "rest_of_another_length": lambda: attention(ones(2, 4, 5, 8), ones(4, 7, 8), ones(4, 7, 8)),
    "mask_does_not_broadcast": lambda: attention(ones(2, 5, 8), ones(2, 7, 8), ones(2, 7, 8), ones(3, 5, 7) > 0),
    "mask_has_too_many_axes": lambda: attention(ones(5, 8), ones(7, 8), ones(7, 8), ones(1, 5, 7) > 0),
    "output": lambda: wrong(ones(4)),
    "output_missing": lambda: short(ones(4)),
    "output_in_a_list": lambda: listed(ones(4)),
    "tensors_by_star": lambda: add(ones(2), ones(2), ones(3)),
    "too_few_by_star": lambda: add(ones(2), ones(2)),
    "too_many_by_star": lambda: add(ones(2), ones(2), ones(2), ones(2)),
    "fixed_and_missing": lambda: Holder(m=3).total(ones(2, 3)),
    "fixed_and_no_int": lambda: Holder(size="3").total(ones(2, 3)),
    "fixed_and_no_multiple": lambda: Holder(size=6).total(ones(2, 6)),
    "check": lambda: check(ones(2, 4, 8, 8), "b c h w", c=3),
}


@circuit("... (h k), h, k -> ...")
def heads_known(joined: Tensor, h: Tensor, k: Tensor) -> Tensor:
    return joined.sum(-1)


def message_of(error: BaseException) -> str:
    """Return the type and the message of an error, with a fixed place of the declaration."""
    return re.sub(r"declared at .*", "declared at model.py:12", f"{type(error).__name__}: {error}\n")


@pytest.mark.smoke
@pytest.mark.parametrize("name", MISTAKES)
def test_message_of_a_refused_call(name: str, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(CircuitError) as caught:
        MISTAKES[name]()
    golden(f"checking/call_{name}.txt", message_of(caught.value))


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "name",
    [
        *(
            "several_at_once",
            "number",
            "multiples",
            "too_few_axes",
            "group_does_not_divide",
            "group_known",
            "open_groups",
        ),
        *(
            "arithmetic_in_a_group",
            "not_whole",
            "dtype",
            "none",
            "rest",
            "output",
            "output_missing",
            "too_many_by_star",
        ),
    ],
)
def test_message_of_a_refused_call_under_compile(name: str) -> None:
    with pytest.raises(ShapeError) as eager:
        MISTAKES[name]()
    torch._dynamo.reset()
    with pytest.raises(Unsupported) as caught:
        torch.compile(MISTAKES[name], backend="eager", fullgraph=True)()
    assert str(eager.value) in str(caught.value).replace("\\n", "\n")


def add_two(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def on_two(text: str, **options: Any) -> Callable[[], object]:
    """Return a function that declares a circuit on a function of two parameters."""
    return lambda: circuit(text, **options)(add_two)


def kernel_of_other_names() -> object:
    @circuit("y, y -> y")
    def double(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    return double.kernel(lambda a, b: a + b)


DECLARATIONS: dict[str, Callable[[], object]] = {
    "arithmetic_never_known": on_two("h/2, a -> a"),
    "arithmetic_on_two_unknowns": on_two("a+b, (a b) -> "),
    "too_many_tensors": on_two("a, b, c -> a"),
    "optional_unknown": on_two("a, a -> a", optional={"mask": "a"}),
    "optional_bad_text": on_two("a -> a", optional={"y": "a ("}),
    "optional_rest_on_no_input": on_two("a -> a", optional={"y": "... a"}),
    "fixed_without_self": on_two("a, b -> a", fixed="a"),
    "fixed_unknown": on_two("a, b -> a", fixed={"c": 3}),
    "fixed_no_int": on_two("a, b -> a", fixed={"a": 2.5}),
    "multiples_unknown": on_two("a, b -> a", multiples={"c": 3}),
    "multiples_no_int": on_two("a, b -> a", multiples={"a": 0}),
    "dtypes_unknown": on_two("a, b -> a", dtypes={"z": torch.long}),
    "dtypes_no_dtype": on_two("a, b -> a", dtypes={"x": "long"}),
    "kernel_of_other_names": kernel_of_other_names,
    "a_class": lambda: circuit("a -> a")(MultiHeadAttention),
    "no_function": lambda: circuit("a -> a")(3),  # type: ignore[arg-type]
    "no_text": lambda: circuit(add_two),  # type: ignore[arg-type]
    "no_text_but_a_module": lambda: circuit(nn.ReLU()),  # type: ignore[arg-type]
    "replaced_forward": lambda: circuit("a -> a")(with_replaced_forward()),
}


def with_replaced_forward() -> nn.Module:
    module = nn.Linear(2, 2)
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("name", DECLARATIONS)
def test_message_of_a_refused_declaration(name: str, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(SignatureError) as caught:
        DECLARATIONS[name]()
    golden(f"checking/declared_{name}.txt", message_of(caught.value))


GOOD: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "plain": (lambda: attention(ones(5, 8), ones(7, 8), ones(7, 8)), (5, 8)),
    "leading axes": (lambda: attention(ones(2, 3, 5, 8), ones(2, 3, 7, 8), ones(2, 3, 7, 8)), (2, 3, 5, 8)),
    "mask": (lambda: attention(ones(2, 5, 8), ones(2, 7, 8), ones(2, 7, 8), ones(2, 5, 7) > 0), (2, 5, 8)),
    "mask broadcasts": (lambda: attention(ones(2, 5, 8), ones(2, 7, 8), ones(2, 7, 8), ones(1, 5, 7) > 0), (2, 5, 8)),
    "mask with fewer axes": (lambda: attention(ones(2, 5, 8), ones(2, 7, 8), ones(2, 7, 8), ones(5, 7) > 0), (2, 5, 8)),
    "mask None": (lambda: attention(ones(2, 5, 8), ones(2, 7, 8), ones(2, 7, 8), None), (2, 5, 8)),
    "by name": (lambda: attention(value=ones(7, 8), key=ones(7, 8), query=ones(5, 8)), (5, 8)),
    "fixed": (lambda: MultiHeadAttention(6, 2, 3)(ones(5, 6), ones(7, 6)), (5, 6)),
    "group": (lambda: heads(ones(2, 64), ones(16)), (2, 4)),
    "open groups": (lambda: open_groups(ones(64), ones(64)), ()),
    "arithmetic": (lambda: down(ones(2, 3, 32, 8)), (2, 6, 16, 4)),
    "arithmetic in a group": (lambda: half_groups(ones(8), ones(12)), (3,)),
    "multiples": (lambda: grey(ones(2, 3, 32, 16)), (2, 32, 16)),
    "dtype": (lambda: embed(torch.arange(5), ones(10, 4)), (5, 4)),
    "scalar out": (lambda: inner(ones(3), ones(3)), ()),
    "number in": (lambda: scale(2.0, ones(3)), (3,)),
    "scalar in": (lambda: scale(ones(), ones(3)), (3,)),
    "no elements": (lambda: attention(ones(0, 5, 8), ones(0, 7, 8), ones(0, 7, 8)), (0, 5, 8)),
    "star": (lambda: add(ones(2), ones(2), ones(2)), (2,)),
    "parameter": (lambda: inner(nn.Parameter(ones(3)), ones(3)), ()),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", GOOD)
def test_a_checked_call_returns_the_result_of_the_function(name: str) -> None:
    call, sizes = GOOD[name]
    torch.manual_seed(0)
    checked = call()
    torch.manual_seed(0)
    with checks(False):
        plain = call()
    assert checked.shape == sizes
    torch.testing.assert_close(checked, plain, rtol=0, atol=0, equal_nan=True)


def test_the_message_ends_with_the_place_of_the_declaration() -> None:
    with pytest.raises(ShapeError) as caught:
        inner(ones(3), ones(4))
    lines = inspect.getsourcelines(sys.modules[__name__])[0]
    line = next(i for i, text in enumerate(lines, 1) if text.startswith("def inner")) - 1
    assert str(caught.value).endswith(f"declared at {__file__}:{line}")


def test_a_traceback_of_an_error_in_the_body_shows_the_generated_lines() -> None:
    with pytest.raises(RuntimeError) as caught:
        inner(ones(3), ones(3).long())
    assert "_result = _body(left, right)" in "".join(traceback.format_exception(caught.value))


def test_the_generated_lines_of_a_function_that_is_gone_are_forgotten() -> None:
    def declare() -> None:
        for number in range(20):
            scope: dict[str, Any] = {}
            exec(f"def gone{number}(x): return x", scope)
            circuit("n -> n")(scope[f"gone{number}"])

    declare()
    gc.collect()
    assert not [name for name in linecache.cache if "<circuit gone" in name]
    with pytest.raises(RuntimeError) as caught:
        inner(ones(3), ones(3).long())
    assert "_body(left, right)" in "".join(traceback.format_exception(caught.value))


def test_errors_are_type_errors_and_value_errors() -> None:
    with pytest.raises(TypeError):
        inner(ones(3), ones(4))
    with pytest.raises(ValueError, match="->"):
        circuit("a")(add_two)


class TestBinding:
    """The checked function binds its arguments exactly as the definition does."""

    def test_every_kind_of_parameter(self) -> None:
        default, seen = object(), []

        def f(a: Any, /, b: Any, c: Any = default, *more: Any, d: Any, e: Any = None, **rest: Any) -> Any:
            seen.append((c, more, d, e, rest))
            return a, b

        wrapped: Any = circuit("y, x -> y, x", optional={"e": "y x"})(f)
        assert inspect.signature(wrapped) == inspect.signature(f)
        wrapped(ones(2), ones(3), 3, 4, 5, d=6, z=7)
        wrapped(ones(2), b=ones(3), d=6)
        assert seen == [(3, (4, 5), 6, None, {"z": 7}), (default, (), 6, None, {})]
        with pytest.raises(ShapeError, match=r"e \[y x\]  3 2"):
            wrapped(ones(2), ones(3), 3, 4, 5, d=6, e=ones(3, 2))
        for call in (lambda f: f(), lambda f: f(1, 2), lambda f: f(a=1, b=2, d=3), lambda f: f(1, 2, b=3, d=4)):
            with pytest.raises(TypeError) as found:
                call(wrapped)
            with pytest.raises(TypeError) as expected:
                call(f)
            assert str(found.value).partition(")")[2] == str(expected.value).partition(")")[2]

    def test_parameters_with_names_of_the_generated_source(self) -> None:
        @circuit("y, y, y, y -> y")
        def f(_circuit: Tensor, _s2: Tensor, refuse: Tensor, _s1: Tensor) -> Tensor:
            return _circuit + _s2 + refuse + _s1

        assert torch.equal(f(ones(2), ones(2), ones(2), ones(2)), 4 * ones(2))
        with pytest.raises(ShapeError, match="_s1"):
            f(ones(2), ones(2), ones(2), ones(3))

    def test_optional_tensors_may_come_before_the_others(self) -> None:
        @circuit("y, x -> y", optional={"bias": "y"})
        def f(a: Tensor, bias: Tensor | None, b: Tensor) -> Tensor:
            return a if bias is None else a + bias

        assert f.circuit.inputs == ("a", "b")
        f(ones(2), None, ones(3))
        with pytest.raises(ShapeError, match="bias"):
            f(ones(2), ones(3), ones(3))

    def test_sizes_that_only_optional_tensors_have(self) -> None:
        @circuit("y -> y", optional={"first": "x y", "second": "x"})
        def f(a: Tensor, *, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
            return a

        for options in ({}, {"first": ones(3, 2)}, {"second": ones(3)}, {"first": ones(3, 2), "second": ones(3)}):
            f(ones(2), **options)
        with pytest.raises(ShapeError, match="x is 4 here, but 3"):
            f(ones(2), first=ones(3, 2), second=ones(4))

    def test_a_group_solved_with_the_size_of_an_optional_tensor(self) -> None:
        @circuit("(h k) -> (h k)", optional={"weight": "k"})
        def f(x: Tensor, weight: Tensor | None = None) -> Tensor:
            return x if weight is None else (x.view(-1, weight.shape[0]) * weight).flatten()

        assert f(ones(12)).shape == f(ones(12), ones(3)).shape == (12,)
        with pytest.raises(ShapeError, match="h is not a whole number: k is 5"):
            f(ones(12), ones(5))

    def test_a_function_without_inputs(self) -> None:
        @circuit("-> y, ", fixed={"y": 3})
        def f() -> Any:
            return ones(3), ones()

        assert f()[0].shape == (3,)
        assert f.circuit.inputs == ()

    def test_methods_of_all_kinds(self) -> None:
        class Boxes:
            size = 3

            @circuit("y -> y")
            def method(self, x: Tensor) -> Tensor:
                return x

            @classmethod
            @circuit("y -> y", fixed={"y": "size"})
            def of_class(cls, x: Tensor) -> Tensor:
                return x

            @staticmethod
            @circuit("y -> y")
            def static(x: Tensor) -> Tensor:
                return x

            @circuit("y -> y")
            @staticmethod
            def outside(x: Tensor) -> Tensor:
                return x

        boxes: Any = Boxes()
        for f in (boxes.method, boxes.of_class, boxes.static, boxes.outside):
            assert f(ones(3)).shape == (3,)
            found = find_circuit(f)
            assert found is not None
            assert found.inputs == ("x",)
            with pytest.raises(ShapeError, match=r"x \[y\]  3 3"):
                f(ones(3, 3))

    def test_functions_written_in_c_and_partial_ones(self) -> None:
        add = circuit("y, y -> y")(torch.add)
        assert torch.equal(add(ones(2), ones(2), alpha=3), 4 * ones(2))
        with pytest.raises(ShapeError, match=r"inputs\[1\] \[y\]  3    y is 3 here"):
            add(ones(2), ones(3))
        half = circuit("y -> y")(functools.partial(torch.mul, 0.5))
        assert torch.equal(half(ones(2)), 0.5 * ones(2))


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclasses.dataclass
class Both:
    left: Tensor
    right: list[Tensor]


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, b],
        lambda a, b: {"left": a, "right": b},
        lambda a, b: Pair(a, b),
        lambda a, b: Both(a, [b]),
        lambda a, b: ((a,), {"deep": [(b,)]}),
    ],
)
def test_outputs_are_found_wherever_they_are_nested(pack: Callable[[Tensor, Tensor], Any]) -> None:
    def f(a: Tensor, b: Tensor) -> Any:
        return pack(a, b)

    result = circuit("y, x -> y, x")(f)(ones(2), ones(3))
    assert [x.shape for x in leaves(result)] == [(2,), (3,)]
    with pytest.raises(ShapeError, match="output 1"):
        circuit("y, x -> x, y")(f)(ones(2), ones(3))


class TestKernels:
    def test_the_kernel_runs_except_inside_definitions(self) -> None:
        @circuit("y -> y")
        def f(x: Tensor) -> Tensor:
            return x + 1

        assert not f.circuit.has_kernel

        def fast(x: Tensor) -> Tensor:
            return x + 2

        assert f.kernel(fast) is fast
        assert f.circuit.has_kernel
        assert f.circuit.body.kernel is fast
        assert f(ones(1)).item() == 3
        with definitions():
            assert f(ones(1)).item() == 2
            with pytest.raises(ShapeError):
                f(ones(1, 1))
        with definitions(), checks(False):
            assert f(ones(1)).item() == 2
        assert f(ones(1)).item() == 3

    def test_a_method_has_a_kernel(self) -> None:
        class Plus(nn.Module):
            m = 3

            @circuit("y -> y")
            def forward(self, x: Tensor) -> Tensor:
                return x + self.m

            @kernel_of(forward)
            def fast(self, x: Tensor) -> Tensor:
                return x + self.m + 1

        assert Plus()(ones(1)).item() == 5
        with definitions():
            assert Plus()(ones(1)).item() == 4

    def test_a_kernel_is_checked_too(self) -> None:
        @circuit("y -> y")
        def f(x: Tensor) -> Tensor:
            return x

        @f.kernel
        def _(x: Tensor) -> Tensor:
            return x[:-1]

        with pytest.raises(ShapeError, match="output"):
            f(ones(3))


class TestSwitches:
    def test_checks_are_off_inside_and_on_again_after_an_error(self) -> None:
        with pytest.raises(RuntimeError), checks(False):
            inner(ones(3), ones(4))
        with pytest.raises(ShapeError):
            inner(ones(3), ones(4))
        with checks(False):
            with checks(True), pytest.raises(ShapeError):
                inner(ones(3), ones(4))
            with pytest.raises(RuntimeError):
                inner(ones(3), ones(4))

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            pytest.param("0", "RuntimeError", marks=pytest.mark.slow),
            pytest.param("", "ShapeError", marks=pytest.mark.slow),
            pytest.param("1", "ShapeError", marks=pytest.mark.slow),
        ],
    )
    def test_the_environment_variable_sets_the_initial_state(self, value: str, error: str) -> None:
        program = """
import torch
from circuits import circuit
try: circuit("a, a -> ")(lambda x, y: x @ y)(torch.ones(3), torch.ones(4))
except Exception as error: print(type(error).__name__)
"""
        environment = {**os.environ, "CIRCUITS_CHECKS": value}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == error


class TestInstances:
    """`circuit(text)(module)` gives one module, of any class, a signature."""

    @pytest.fixture
    def linear(self) -> nn.Linear:
        return circuit("... m -> ... k", fixed={"m": "in_features", "k": "out_features"})(nn.Linear(4, 3))

    def test_only_the_check_is_added(self) -> None:
        module = nn.Linear(4, 3)
        before, held = {**module.state_dict()}, {**module.__dict__}
        signed = circuit("... m -> ... k", fixed={"m": "in_features"})(module)
        assert signed is module
        assert held.items() <= module.__dict__.items()
        assert list(module.state_dict()) == list(before)
        assert all(module.state_dict()[name] is not None for name in before)
        assert repr(module) == repr(nn.Linear(4, 3))
        assert isinstance(module, nn.Linear)
        assert type(module).__name__ == "Linear"
        assert find_circuit(nn.Linear(4, 3)) is None

    def test_it_checks(self, linear: nn.Linear) -> None:
        assert linear(ones(2, 4)).shape == (2, 3)
        for call in (linear, linear.forward):
            with pytest.raises(ShapeError, match=r"m is 5 here, but 4 \(fixed by Linear\.in_features\)"):
                call(ones(2, 5))

    def test_a_signature_of_an_instance_overrides_that_of_its_class(self) -> None:
        module = circuit("y m, x m -> y m")(MultiHeadAttention(6, 2, 3))
        found, of_class = find_circuit(module), find_circuit(MultiHeadAttention(6, 2, 3))
        assert found is not None
        assert of_class is not None
        assert (str(found.signature), str(of_class.signature)) == ("y m, x m -> y m", "... y m, ... x m -> ... y m")
        with pytest.raises(ShapeError, match="3 axes"):
            module(ones(1, 5, 6), ones(1, 7, 6))

    def test_a_second_signature_replaces_the_first(self, linear: nn.Linear) -> None:
        circuit("m -> k")(linear)
        assert linear(ones(4)).shape == (3,)
        with pytest.raises(ShapeError, match="2 axes here, but the signature has 1"):
            linear(ones(2, 4))

    @pytest.mark.parametrize(
        "again",
        [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: saved(x)],
        ids=["deepcopy", "pickle", "torch.save"],
    )
    def test_a_copy_is_signed_and_runs_on_its_own_parameters(
        self, linear: nn.Linear, again: Callable[[nn.Linear], nn.Linear]
    ) -> None:
        before = linear(ones(2, 4))
        other = again(linear)
        torch.testing.assert_close(other(ones(2, 4)), before)
        other.weight = nn.Parameter(torch.zeros(3, 4))
        torch.testing.assert_close(other(ones(2, 4)), other.bias.expand(2, 3))
        torch.testing.assert_close(linear(ones(2, 4)), before)
        found, old = find_circuit(other), find_circuit(linear)
        assert found is not None
        assert old is not None
        assert found.signature == old.signature
        with pytest.raises(ShapeError):
            other(ones(2, 5))

    def test_a_shallow_copy_runs_on_its_own_parameters(self, linear: nn.Linear) -> None:
        other = copy.copy(linear)
        other.__dict__["_parameters"] = {name: torch.zeros_like(each) for name, each in linear.named_parameters()}
        assert other(ones(2, 4)).count_nonzero() == 0
        assert linear(ones(2, 4)).count_nonzero() > 0
        with pytest.raises(ShapeError):
            other(ones(2, 5))

    def test_inside_another_module_it_is_copied_with_it(self, linear: nn.Linear) -> None:
        outer = copy.deepcopy(nn.Sequential(linear, nn.ReLU()))
        with pytest.raises(ShapeError):
            outer(ones(2, 5))
        assert find_circuit(outer) is None
        assert find_circuit(outer[0]) is not None


def saved(module: nn.Linear) -> nn.Linear:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_check_returns_the_sizes() -> None:
    assert check(ones(2, 3, 8, 6), "b c h w", c=3) == {"b": 2, "c": 3, "h": 8, "w": 6}
    assert check(ones(5, 2, 12), "... (h k)", k=4) == {"k": 4, "h": 3}
    assert check(ones(5, 12), "... 2*c") == {"c": 6}


def test_the_declaration_is_data() -> None:
    spec = attention.circuit
    assert spec.name == "attention"
    assert spec.inputs == ("query", "key", "value")
    assert spec.parameters == ("query", "key", "value", "mask")
    assert [str(term) for term in spec.optional["mask"]] == ["...", "y", "x"]
    assert find_circuit(attention) is spec
    assert attention.__doc__ is not None
    assert attention.__doc__.startswith("Return for each of y queries")
    assert spec.definition is inspect.unwrap(attention)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_fixed_sizes_are_read_from_the_owner() -> None:
    module = MultiHeadAttention(6, 2, 3)
    spec = find_circuit(module)
    assert spec is not None
    assert spec.owner == "self"
    assert spec.name == "MultiHeadAttention.forward"
    assert fixed_sizes(spec, module) == {"m": 6}


def test_check_refuses_the_size_of_an_unknown_axis() -> None:
    with pytest.raises(SignatureError, match=r"check: 'b' is not an axis of a; there are a"):
        check(ones(2), "a", b=3)
    with pytest.raises(SignatureError, match=r"'x' is not an axis of \.\.\. \(h k\) w/2; there are h, k, w"):
        check(ones(2, 12, 3), "... (h k) w/2", k=4, x=1)
    with pytest.raises(SignatureError, match="'b' is not an axis of ; there are none"):
        check(ones(), "", b=3)


def declared(text: str, **options: Any) -> Callable[[Any], Any]:
    """Return the decorator of `circuit`, for functions without annotations."""
    return circuit(text, **options)


def test_names_are_normalized_as_python_does() -> None:
    """The micro sign and the Greek letter are one identifier in Python, and one axis here."""
    micro, mu = "\u00b5", "\u03bc"
    for name in (micro, mu):
        assert check(ones(3), name, **{micro: 3}) == {mu: 3}
        with pytest.raises(ShapeError):
            check(ones(3), name, µ=5)
    with pytest.raises(ShapeError):
        declared(f"{micro}, {mu} -> ")(lambda x, y: x.sum() + y.sum())(ones(2), ones(3))
    f = declared(f"a {mu}' -> a", fixed={f"{micro}'": 3}, multiples={f"{micro}'": 3})(lambda x: x.sum(1))
    assert f(ones(2, 3)).shape == (2,)
    g = declared(f"a -> {micro}", optional={micro: "a"}, fixed={mu: 2})(lambda x, µ=None: x)
    with pytest.raises(ShapeError):
        g(ones(2), ones(3))

    class Fixed:
        def __init__(self) -> None:
            self.µ = 2

        @circuit(f"{micro} -> {mu}", fixed=micro)
        def run(self, x: Tensor) -> Tensor:
            return x

    assert Fixed().run(ones(2)).shape == (2,)
    with pytest.raises(ShapeError):
        Fixed().run(ones(3))


def test_multiples_of_a_group_of_unknown_axes() -> None:
    f = declared("b (p q) -> b", multiples={"q": 16})(lambda x: x.sum(1))
    assert f(ones(2, 48)).shape == (2,)
    with pytest.raises(ShapeError, match=r"\(p q\) is 10, not a multiple of 16"):
        f(ones(2, 10))
    both = declared("(p q 3) -> (q p)", multiples={"q": 4, "p": 2})(lambda x: x[::3])
    assert both(ones(48)).shape == (16,)
    with pytest.raises(ShapeError, match=r"\(p q\) is 12, not a multiple of 8"):
        both(ones(36))
    square = declared("(q q) -> ", multiples={"q": 2})(lambda x: x.sum())
    with pytest.raises(ShapeError, match=r"\(q q\) is 6, not a multiple of 4"):
        square(ones(6))
    optional = declared("(p q) -> ", optional={"y": "q"}, multiples={"q": 2})(lambda x, y=None: x.sum())
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        optional(ones(5))


def test_a_fixed_number_that_is_no_multiple_is_refused_at_the_declaration() -> None:
    with pytest.raises(SignatureError, match="the size 6 of m is not a multiple of 4"):
        declared("m -> m", fixed={"m": 6}, multiples={"m": 4})(lambda x: x)
    assert declared("m -> m", fixed={"m": 8}, multiples={"m": 4})(lambda x: x)(ones(8)).shape == (8,)


def test_parameters_may_have_the_names_of_builtins() -> None:
    f = declared("t m -> t m")(lambda x, len: x)
    assert f(ones(2, 3), 2).shape == (2, 3)
    g = declared("len, len -> len, ")(lambda isinstance, *len: (isinstance, len[0].sum()))
    assert g(ones(2), ones(2))[0].shape == (2,)
    with pytest.raises(ShapeError):
        g(ones(2), ones(3))
    with pytest.raises(ShapeError, match="1 tensor was passed"):
        g(ones(2))
    h = declared("a -> b, a")(lambda len, _isinstance, isinstance: (len[:1], len))
    assert h(ones(2), 0, 0)[0].shape == (1,)


def test_a_parameter_named_by_a_keyword_is_refused() -> None:
    def f(*given: Tensor) -> Tensor:
        return given[0]

    for name, said in (
        ("class", "has the name of a Python keyword"),
        ("a", ""),
        ("a b", "does not have a Python name"),
    ):
        parameter = inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY)
        parameter._name = name
        f.__signature__ = inspect.Signature([parameter])
        if not said:
            assert circuit("a -> a")(f)(torch.ones(2)).shape == (2,)
            continue
        with pytest.raises(SignatureError, match=rf"'{name}' of <function .* {said}"):
            circuit("a -> a")(f)


@pytest.mark.parametrize("option", ["optional", "fixed", "dtypes", "multiples"])
@pytest.mark.parametrize("given", [3, ["n"], {1: 2}])
def test_an_option_that_is_no_mapping_from_names_is_refused(option: str, given: Any) -> None:
    with pytest.raises(SignatureError, match=f"{option}=.*: expected a mapping from the name of an? (axis|parameter)"):
        circuit("n -> n", **{option: given})


LONG: dict[str, tuple[Callable[[int], str], Callable[[int], int]]] = {
    "sum": (lambda terms: "n -> " + "+".join(["n"] * terms), lambda terms: 2 * terms),
    "difference": (lambda terms: f"n -> {terms + 1}*n" + "-n" * terms, lambda terms: 2),
    "product": (lambda terms: "n, 1 -> " + "*".join(["n", "1"] * (terms // 2)), lambda terms: 2 ** (terms // 2)),
    "group": (lambda terms: "n -> (n " + " ".join(["1"] * terms) + ")", lambda terms: 2),
    "quotient": (lambda terms: "n -> n" + "/1" * terms, lambda terms: 2),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("terms", [2, 40, 200, 300])
def test_a_size_may_have_hundreds_of_terms(name: str, terms: int) -> None:
    """Python compiles no more than 200 parentheses inside each other."""
    text, size = LONG[name][0](terms), min(LONG[name][1](terms), 2**40)
    f = circuit(text)(lambda x, y=None: torch.empty(size, device="meta"))
    given = (torch.ones(2), torch.ones(1))[: text.count(",") + 1]
    if LONG[name][1](terms) == size:
        assert f(*given).shape == (size,)
    f = circuit(text)(lambda x, y=None: torch.empty(size + 1, device="meta"))
    with pytest.raises(ShapeError, match=f"is {size + 1} here"):
        f(*given)


def test_more_terms_than_python_compiles_are_refused() -> None:
    with pytest.raises(SignatureError, match="more terms than Python compiles"):
        circuit("n -> " + "+".join(["n"] * 20_000))(lambda x: x)


def test_a_method_whose_first_parameter_is_not_self_is_told() -> None:
    class Net(nn.Module):
        @circuit("b 4 -> b 4")
        def forward(this, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ShapeError, match="not a Net; the first parameter of a method is named self"):
        Net()(torch.ones(2, 4))
