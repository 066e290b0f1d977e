"""torch.jit.trace and torch.fx.symbolic_trace record models with signatures: right at other sizes, without warnings."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import ShapeError, check, checks, circuit, einsum, rearrange, reduce, repeat
from models import MultiHeadAttention

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.trace.*deprecated:DeprecationWarning")


def jit_traced(f: Callable[..., Any], *inputs: Tensor) -> Any:
    """Return the program that torch.jit.trace records; any TracerWarning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        return torch.jit.trace(f, inputs)


@circuit("... y k, ... x k, ... x k -> ... y k", optional={"mask": "... y x"})
def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x") * query.shape[-1] ** -0.5
    return einsum((score if mask is None else score + mask).softmax(-1), value, "... y x, ... x k -> ... y k")


@circuit("..., ... -> ...")
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@circuit("b (b c) -> b", optional={"by": "c"})
def depends_on_an_optional_size(x: Tensor, by: Tensor | None = None) -> Tensor:
    return x.sum(1)


@circuit("y (h k) -> h y k, y", fixed={"k": 2}, multiples={"y": 2})
def heads(x: Tensor) -> tuple[Tensor, Tensor]:
    return rearrange(x, "y (h k) -> h y k", k=2), reduce(x, "y m -> y", "sum")


@circuit(" -> 3")
def made(x: Tensor) -> Tensor:
    return x.expand(3)


def checked_sizes(x: Tensor) -> Tensor:
    sizes = check(x, "y (h k)", k=2)
    return x.reshape(sizes["y"] * sizes["h"], 2)


def shapes(*sizes: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(size, 4) for size in sizes)


def batches(*sizes: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, size, 4) for size in sizes)


class TestJitTrace:
    @pytest.mark.parametrize(
        ("f", "inputs", "others"),
        [
            (attend, shapes(3, 5, 5), shapes(2, 7, 7)),
            (attend, (*shapes(3, 5, 5), torch.randn(3, 5)), (*shapes(2, 7, 7), torch.randn(2, 7))),
            (add, shapes(3, 3), shapes(5, 5)),
            (depends_on_an_optional_size, (torch.ones(2, 6),), (torch.ones(2, 8),)),
            (heads, shapes(4), shapes(6)),
            (made, (torch.ones(()),), (torch.tensor(2.0),)),
            (checked_sizes, shapes(3), shapes(5)),
            (MultiHeadAttention(m=4, k=2, h=2), batches(3, 5), batches(6, 2)),
            (circuit("n 4 -> n 3")(nn.Linear(4, 3)), shapes(3), shapes(5)),
        ],
        ids=["attend", "mask", "rest", "optional", "heads", "scalar", "check", "model", "signed"],
    )
    def test_the_program_is_right_at_other_sizes(
        self, f: Callable[..., Any], inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]
    ) -> None:
        program = jit_traced(f, *inputs)
        torch.testing.assert_close(program(*others), f(*others))

    @pytest.mark.parametrize("on", [True, False])
    def test_the_graph_has_the_operations_of_the_body_only(self, on: bool) -> None:
        """A comparison of sizes would be an operation."""
        with checks(on):
            graph = str(jit_traced(attend, *shapes(3, 5, 5)).graph)
        assert "aten::softmax" in graph
        assert "aten::eq" not in graph
        assert "aten::ne" not in graph

    def test_inputs_that_do_not_fit_are_refused_with_their_sizes(self) -> None:
        with pytest.raises(ShapeError, match=r"value \[... x k\]  7 4    x is 7 here, but 5 \(from key\)"):
            jit_traced(attend, *shapes(3, 5, 7))
        with pytest.raises(ShapeError, match="k is 4 here, but 3 in tensor 0"):
            jit_traced(lambda x, y: einsum(x, y, "y k, x k -> y x"), torch.ones(2, 3), torch.ones(5, 4))
        assert not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]

    def test_warnings_about_the_body_are_kept(self) -> None:
        @circuit("n 4 -> n 4")
        def f(x: Tensor) -> Tensor:
            return x * 2 if x.shape[0] == 3 else x

        with pytest.warns(torch.jit.TracerWarning, match="boolean"):  # pyright: ignore[reportPrivateImportUsage]
            torch.jit.trace(f, shapes(3))


class Verbs(nn.Module):
    """Calls each verb, `check`, and a function with a signature."""

    def __init__(self) -> None:
        super().__init__()
        self.map = circuit("... 4 -> ... 6")(nn.Linear(4, 6))
        self.register_buffer("offset", torch.arange(6.0))

    @circuit("n 4 -> n k' n", fixed={"k'": 2})
    def forward(self, x: Tensor) -> Tensor:
        sizes = check(x, "n m")
        split = rearrange(self.map(x), "n (k h) -> k n h", k=2)
        offset: Any = self.offset
        moved = split + rearrange(repeat(offset, "m -> n m", n=sizes["n"]), "n (k h) -> k n h", k=2)
        stacked = reduce([moved, split], "two k n h -> k n h", "sum")
        mixed = einsum(stacked, attend(stacked, moved, split), "k n h, k x h -> n k x")
        return rearrange(mixed, "n k' x -> n k' x", x=x.shape[0])


class TestSymbolicTrace:
    def test_verbs_are_leaves_and_the_graph_is_right_at_other_sizes(self) -> None:
        model = Verbs()
        graph = torch.fx.symbolic_trace(model)
        called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
        assert {einsum, rearrange, reduce, repeat, check} <= called
        for x in shapes(3, 5):
            torch.testing.assert_close(graph(x), model(x))
        graph.graph.lint()

    def test_a_leaf_checks_when_the_graph_runs(self) -> None:
        graph = torch.fx.symbolic_trace(lambda x, y: einsum(x, y, "y k, x k -> y x"))
        with pytest.raises(ShapeError, match="k is 4 here, but 3 in tensor 0"):
            graph(torch.ones(2, 3), torch.ones(5, 4))

    def test_arguments_that_are_no_proxies_are_checked(self) -> None:
        """Nothing is recorded of a call that has no Proxy, so its check runs."""
        inner = circuit("3 -> 3")(torch.relu)
        with pytest.raises(ShapeError):
            torch.fx.symbolic_trace(lambda x: x + inner(torch.ones(4)))

    def test_optional_tensors_and_several_outputs(self) -> None:
        graph = torch.fx.symbolic_trace(lambda x, mask: (attend(x, x, x, mask), *heads(x)))
        x, mask = torch.randn(4, 4), torch.randn(4, 4)
        torch.testing.assert_close(graph(x, mask), (attend(x, x, x, mask), *heads(x)))

    def test_sizes_that_are_proxies(self) -> None:
        graph = torch.fx.symbolic_trace(lambda x: repeat(torch.ones(2), "k -> n k", n=x.shape[0]))
        assert graph(torch.ones(5)).shape == (5, 2)
