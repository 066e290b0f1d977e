"""Sizes that `fixed` reads from the owner of a method, numbers of numpy, and functions that cannot be circuits."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import models
from circuits import CircuitError, ShapeError, SignatureError, broadcast, check, circuit, laws, trace


class ByProperty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 4)

    @property
    def k(self) -> int:
        return self.map.in_features

    @circuit("n k -> n 4", fixed="k")
    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class ByClass(nn.Module):
    k = 3

    @circuit("n k -> n k", fixed="k")
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class BySlot:
    __slots__ = ("k",)

    def __init__(self) -> None:
        self.k = 3

    @circuit("n k -> n k", fixed="k")
    def __call__(this, x: Tensor) -> Tensor:
        return 2 * x


class ByCachedProperty:
    @functools.cached_property
    def k(self) -> int:
        return 3

    @circuit("n k -> n k", fixed="k")
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * x


class OfTheClass:
    k = 3

    @classmethod
    @circuit("n k -> n k", fixed="k")
    def double(kind, x: Tensor) -> Tensor:  # pyright: ignore[reportSelfClsParameterName]
        return 2 * x

    @circuit("n 3 -> n 3")
    @staticmethod
    def triple(x: Tensor) -> Tensor:
        return 3 * x


class WithThis(nn.Module):
    """The first parameter of its forward is not called self."""

    def forward(this, x: Tensor) -> Tensor:  # pyright: ignore[reportSelfClsParameterName]
        return 2 * x


CALLS = [ByProperty(), ByClass(), BySlot(), ByCachedProperty(), OfTheClass.double, OfTheClass.triple]


@pytest.mark.parametrize("f", CALLS, ids=lambda f: getattr(f, "__name__", type(f).__name__))
def test_a_size_is_read_as_python_reads_an_attribute(f: Callable[[Tensor], Tensor]) -> None:
    assert f(torch.ones(2, 3)).shape[0] == 2
    with pytest.raises(ShapeError, match="4 here, but"):
        f(torch.ones(2, 4))


def test_the_forward_of_a_signed_module_may_have_any_first_parameter() -> None:
    module = circuit("n k -> n k")(WithThis())
    assert module(torch.ones(2, 3)).shape == (2, 3)


def test_a_property_is_read_by_trace_laws_and_broadcast_too() -> None:
    model = ByProperty()
    assert "n 3 -> n 4" in str(trace(model))
    laws.broadcasting(model)
    assert broadcast(model, "b n k -> b n 4")(torch.ones(5, 2, 3)).shape == (5, 2, 4)


def test_a_property_that_fails_is_named_with_its_reason() -> None:
    class Broken:
        @property
        def k(self) -> int:
            raise AttributeError("the map is not made yet")

        @circuit("n k -> n k", fixed="k")
        def run(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(CircuitError, match=r"should be Broken\.k, which cannot be read: the map is not made yet"):
        Broken().run(torch.ones(2, 3))


np: Any = numpy
"""To pyright, an integer of numpy is no int."""

WIDTH = np.prod([2, 4])


class TestNumpy:
    def test_sizes_of_a_model(self, tmp_path: Any) -> None:
        """Constructors of models take numpy's integers for ints: their checks, `save` and torch.compile see ints."""
        model = models.MultiHeadAttention(m=WIDTH, k=np.int32(4), h=np.int8(2))
        x = torch.rand(1, 3, 8)
        models.save(model, tmp_path / "file")
        torch.testing.assert_close(models.load(tmp_path / "file")(x, x), model(x, x))
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x, x), model(x, x))

    def test_sizes_of_a_signature(self) -> None:
        signed = circuit("n m -> n k", fixed={"m": "in_features", "k": "out_features"})(nn.Linear(WIDTH, 3))
        assert signed(torch.ones(2, 8)).shape == (2, 3)
        f = circuit("n m -> n m", fixed={"m": WIDTH}, multiples={"m": np.int16(4)})(torch.relu)
        assert f(torch.ones(2, 8)).shape == (2, 8)
        assert [type(f.circuit.fixed["m"]), type(f.circuit.multiples["m"])] == [int, int]
        with pytest.raises(ShapeError, match=r"m is 9 here, but 8 \(fixed\)"):
            f(torch.ones(2, 9))

    def test_sizes_of_check_trace_and_broadcast(self) -> None:
        assert check(torch.ones(2, 200), "n (h k)", k=np.uint8(100)) == {"n": 2, "h": 2, "k": 100}
        f = circuit("n -> n")(torch.relu)
        assert "5 -> 5" in str(trace(f, sizes={"n": np.int64(5)}))
        assert broadcast(f, "b n -> b n", chunk_size=np.int64(2))(torch.ones(5, 3)).shape == (5, 3)

    @pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "uint8", "bool_"])
    def test_a_scalar_input(self, kind: str) -> None:
        @circuit("n,  -> n")
        def scale(x: Tensor, by: Any) -> Tensor:
            return x * by

        number = getattr(numpy, kind)(1)
        assert torch.equal(scale(torch.ones(2), number), torch.ones(2))
        assert torch.equal(trace(scale, torch.ones(2), number)(torch.ones(2), number), torch.ones(2))

    def test_an_array_is_no_scalar(self) -> None:
        with pytest.raises(ShapeError, match="a number or a tensor without axes is expected"):
            circuit("n,  -> n")(torch.mul)(torch.ones(2), np.ones(2))


def generator(x: Tensor) -> Iterator[Tensor]:
    yield from x


async def coroutine(x: Tensor) -> Tensor:
    return x


async def coroutine_of_a_class(cls: type, x: Tensor) -> Tensor:
    return x


async def async_generator(x: Tensor) -> AsyncIterator[Tensor]:
    yield x


class Generating(nn.Module):
    def forward(self, x: Tensor) -> Iterator[Tensor]:
        yield from x


class Callables:
    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        yield from x

    async def method(self, x: Tensor) -> Tensor:
        return x


@functools.wraps(generator)
def first(x: Tensor) -> Tensor:
    return next(generator(x))


LATE: dict[str, Any] = {
    "generator": generator,
    "coroutine": coroutine,
    "async generator": async_generator,
    "module": Generating(),
    "callable": Callables(),
    "bound method": Callables().method,
    "partial": functools.partial(generator),
    "partial of a partial": functools.partial(functools.partial(coroutine)),
    "static method": staticmethod(generator),
    "class method": classmethod(coroutine_of_a_class),
    "lambda": lambda x: (yield x),
}


@pytest.mark.parametrize("name", LATE)
def test_a_function_without_a_result_at_its_return_is_refused_at_the_declaration(name: str) -> None:
    with pytest.raises(SignatureError, match=r"a circuit returns tensors, and .* is (a generator|async): it has no"):
        circuit("n -> n")(LATE[name])


def test_a_kernel_that_is_a_generator_is_refused() -> None:
    f: Any = circuit("n -> n")(lambda x: x)
    with pytest.raises(SignatureError, match="the kernel of <lambda> is a generator"):
        f.kernel(generator)


def test_a_function_that_wraps_a_generator_may_return_tensors() -> None:
    assert inspect.unwrap(first) is generator
    assert circuit("n -> ")(first)(torch.arange(3)) == 0
