# pyright: reportArgumentType=false, reportOptionalOperand=false
"""The call that trace makes: as the user made it, with inputs of the dtypes and sizes that were declared."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, trace

MISSING = object()
"""A default that is never passed."""


def configured(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Fill in a keyword argument that the caller left out, as the decorators of transformers do."""

    @functools.wraps(forward)
    def filled(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("scale") is None:
            kwargs["scale"] = 3
        return forward(self, *args, **kwargs)

    return filled


class Configured(nn.Module):
    """A module whose decorator accepts `scale` only by keyword."""

    @configured
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: int | None = None) -> Tensor:
        return x * (scale or 0)


def counts(x: Tensor, *rest: Tensor, **others: Any) -> Tensor:
    return x * (1 + len(rest)) + len(others)


def distinguishes(x: Tensor, flag: Any = MISSING, *, k: int = 3) -> Tensor:
    return x * (1 if flag is MISSING else 2) + k


CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "decorated": (Configured(), (torch.ones(2),), {}),
    "decorated, by keyword": (Configured(), (), {"x": torch.ones(2)}),
    "decorated, given": (Configured(), (torch.ones(2),), {"scale": 5}),
    "left out": (distinguishes, (torch.ones(2),), {}),
    "given": (distinguishes, (torch.ones(2), None), {"k": 4}),
    "only by keyword": (distinguishes, (), {"k": 4, "x": torch.ones(2)}),
    "any number": (counts, (torch.ones(2), torch.ones(2)), {"a": 1, "b": 2}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_call_is_made_as_the_user_made_it(name: str) -> None:
    target, args, kwargs = CALLS[name]
    diagram = trace(target, *args, **kwargs)
    assert torch.equal(diagram(*args, **kwargs), target(*args, **kwargs))


@pytest.mark.parametrize("args", [(), (torch.ones(2), None, 3, 4)])
def test_arguments_that_do_not_fit_are_refused(args: Any) -> None:
    with pytest.raises(TypeError, match=r"distinguishes takes \(x, flag"):
        trace(distinguishes, *args, **({} if args else {"k": torch.ones(2)}))


@circuit("n, m k -> n k", dtypes={"tokens": torch.long})
def embed(tokens: Tensor, table: Tensor) -> Tensor:
    return table[tokens]


@circuit("n, n -> n", dtypes={"tensors[1]": torch.long})
def gather(*tensors: Tensor) -> Tensor:
    return tensors[0][tensors[1]]


class Embeds(nn.Module):
    """A module with a floating-point parameter, and an input of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.rand(5, 4, dtype=torch.float64))

    @circuit("n -> n 4", dtypes={"tokens": torch.long})
    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


@pytest.mark.parametrize("options", [{}, {"sizes": {"n": 3}}])
def test_inputs_made_from_axes_have_the_dtypes_of_the_circuit(options: Any) -> None:
    for axes in ({}, {"axes": "n, m k"}):
        assert [value.dtype for value in trace(embed, **axes, **options).inputs] == [torch.long, torch.float32]
    assert [value.dtype for value in trace(Embeds(), axes="n", **options).inputs] == [torch.long]
    assert [value.dtype for value in trace(Embeds().forward, axes="n", **options).inputs] == [torch.long]
    assert [value.dtype for value in trace(gather, axes="n, n", **options).inputs] == [torch.float32, torch.long]
    assert [value.dtype for value in trace(lambda x: x.cos(), axes="n", **options).inputs] == [torch.float32]


@pytest.mark.parametrize("size", [True, False, 2.0, -1, "3", None])
def test_a_size_is_an_int(size: Any) -> None:
    with pytest.raises(CircuitError, match="a size must be an int of at least 0"):
        trace(embed, sizes={"n": size})
    with pytest.raises(CircuitError, match="a size must be an int of at least 0"):
        trace(torch.sin, axes="n", sizes={"n": size})
