"""Which cases `laws.suite` makes, and what they say of code that is correct."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from circuits import CircuitError, circuit, laws


def outcomes(test: Any) -> dict[str, str]:
    """Run every case of a suite in order; "" if it passes, otherwise "skipped: ..." or "failed: ..."."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    found = {}
    for name, law in zip(mark.kwargs["ids"], mark.args[1], strict=True):
        try:
            test(law)
            found[name] = ""
        except pytest.skip.Exception as reason:
            found[name] = f"skipped: {reason}"
        except Exception as error:
            found[name] = f"failed: {error} {' '.join(getattr(error, '__notes__', []))}"
    return found


def starting(with_: str, found: Mapping[str, str]) -> list[str]:
    return [name for name, text in found.items() if text.startswith(with_)]


compiles = {"compiles": "slow"}


class Block(nn.Module):
    """Multi-head attention as users write it, around torch's operator."""

    def __init__(self, m: int = 4, h: int = 2) -> None:
        super().__init__()
        self.m, self.h = m, h
        self.qkv, self.out = nn.Linear(m, 3 * m), nn.Linear(m, m)

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "x x"})
    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = [each.unflatten(-1, (self.h, -1)).transpose(-2, -3) for each in self.qkv(data).chunk(3, -1)]
        return self.out(F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(-2, -3).flatten(-2))


class Wrong(Block):
    """The same with a softmax whose gradient is scaled: first derivatives are wrong."""

    @circuit("... x m -> ... x m", fixed="m", optional={"mask": "x x"})
    def forward(self, data: Tensor, mask: Tensor | None = None) -> Tensor:
        output: Any = super().forward
        result = output(data, mask)
        return result + 0.5 * (result - result.detach())


@pytest.mark.slow
def test_a_block_around_torchs_attention_holds() -> None:
    """torch has no second derivative of the fused implementation on CPU; that is no mistake of the block."""
    for inputs in ({}, {"mask": torch.bool}):
        found = outcomes(laws.suite(Block, without=compiles, inputs=inputs))
        assert starting("failed", found) == []
        assert [found[name] for name in ("shapes", "broadcasting", "independent", "gradcheck")] == [""] * 4
    laws.backward_rule(Block())
    assert "gradcheck" in starting("failed", outcomes(laws.suite(Wrong, without=compiles)))


class Once(torch.autograd.Function):
    """The square of a number; its derivative has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return 2 * x * dy


class OnceWrong(Once):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * dy


def test_no_second_derivative_is_not_a_wrong_one() -> None:
    with pytest.raises(
        laws.DoesNotApply, match=r"first derivatives .* agree .* second .* cannot be checked: trying to"
    ):
        laws.gradcheck(circuit("a -> a")(lambda x: Once.apply(x)))
    with pytest.raises(AssertionError, match="first derivatives differ"):
        laws.gradcheck(circuit("a -> a")(lambda x: OnceWrong.apply(x)))


def test_an_error_of_the_code_is_not_taken_for_a_missing_derivative() -> None:
    @circuit("a -> a")
    def broken(x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            x.register_hook(lambda gradient: gradient.reshape(-1, 97))
        return x.sin()

    with pytest.raises(RuntimeError, match="shape"):
        laws.gradcheck(broken)


# --- Integers ---------------------------------------------------------------------------------------------------------


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.m = 4
        self.table, self.map = nn.Embedding(10, 4), nn.Linear(4, 4)

    @circuit("... x -> ... x m", fixed="m")
    def forward(self, tokens: Tensor) -> Tensor:
        return self.map(self.table(tokens))


class Declared(Embedded):
    @circuit("... x -> ... x m", fixed="m", dtypes={"tokens": torch.long})
    def forward(self, tokens: Tensor) -> Tensor:
        return self.map(self.table(tokens))


@pytest.mark.parametrize("make", [Embedded, Declared])
def test_integers_are_told_once(make: Any) -> None:
    """One failure, with what to pass; with it, none."""
    found = outcomes(laws.suite(make))
    assert starting("failed", found) == ["shapes"]
    assert "inputs={'tokens': range(10)}" in found["shapes"]
    others = [text for name, text in found.items() if name != "shapes"]
    assert others == ["skipped: the circuit cannot be called: see why in the case shapes"] * len(others)
    found = outcomes(laws.suite(make, without={**compiles, "shapes": "the first case is another one"}))
    assert starting("failed", found) == ["broadcasting"]
    found = outcomes(laws.suite(make, without=compiles, inputs={"tokens": range(10)}))
    assert starting("failed", found) == []
    assert {"shapes", "independent", "gradcheck"} <= {*starting("", found)} - {*starting("skipped", found)}


def test_a_call_that_fails_only_on_numbers_is_told_by_the_first_case() -> None:
    """Shapes alone are right: without numbers nothing is out of range."""
    found = outcomes(laws.suite(Embedded, without=compiles, inputs={"tokens": range(20)}))
    assert starting("failed", found) == ["shapes"]
    assert "index out of range" in found["shapes"]


def test_a_law_that_fails_by_itself_is_not_skipped() -> None:
    class Leaky(nn.Module):
        @circuit("... x -> ... x")
        def forward(self, data: Tensor) -> Tensor:
            if data.ndim > 2:
                raise ValueError("at most one leading axis")
            return data - data.mean()

    found = outcomes(laws.suite(Leaky, without=compiles))
    assert {"shapes", "independent"} <= {*starting("failed", found)}


# --- Which laws there are ---------------------------------------------------------------------------------------------


@circuit("b a -> b a")
def plain(x: Tensor) -> Tensor:
    return 2 * x


def names(test: Any) -> list[str]:
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return [*mark.kwargs["ids"]]


def test_laws_that_cannot_apply_have_no_case() -> None:
    """Those that no test lists, and independence where the signature has no `...`."""
    implied = ["shapes", "broadcasting", "independent", "kernel", "gradcheck", "compiles", "backward_rule"]
    assert names(laws.suite(Block)) == implied
    assert names(laws.suite(lambda: Block())) == implied
    without_rest = [name for name in implied if name != "independent"]
    assert names(laws.suite(plain)) == without_rest
    also = [laws.linear, partial(laws.independent, axis="b")]
    assert names(laws.suite(plain, also=also)) == [*without_rest, "linear", "independent(b)"]
    assert starting("failed", outcomes(laws.suite(plain, also=also, without=compiles))) == []


def test_without_may_name_a_law_that_has_no_case() -> None:
    assert "independent" not in names(laws.suite(plain, without={"independent": "no batch", "linear": "not listed"}))
    with pytest.raises(CircuitError, match="without has the key kernels; possible keys are shapes, broadcasting"):
        laws.suite(plain, without={"kernels": "none"})
