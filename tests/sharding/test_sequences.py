# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Models whose sequences are split over ranks that are threads, beside whole ones; their plans, and what is refused."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor._utils import ExplicitRedistributionContext

import models
from circuits import CircuitError, circuit, definitions, plan_sharding, shard
from tests.sharding.ranks import COLLECTIVES, Sent, on_ranks

X = {"x": "sequence"}
BOTH = {"x": "sequence", "y": "sequence"}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
KEY_MASK = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
Call = Mapping[str, Any]


def attention(**options: Any) -> nn.Module:
    return models.MultiHeadAttention(16, 4, 4, **options)


def language_model(**options: Any) -> nn.Module:
    return models.LanguageModel(12, 16, 4, 4, 32, 1, **options)


def transformer(dropout: float = 0.0) -> nn.Module:
    return models.Transformer(16, 4, 4, 32, 1, 1, dropout=dropout)


def vectors(*lengths: int) -> tuple[Tensor, ...]:
    return tuple([torch.randn(2, length, 16, dtype=torch.float64) for length in lengths])


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], dict[str, str], Call]] = {
    "attention": (attention, lambda: vectors(4, 8), BOTH, {}),
    "attention of one tensor, causal": (lambda: attention(bias=True), lambda: vectors(8) * 2, BOTH, {"causal": True}),
    "attention in a window": (lambda: attention(window=3), lambda: vectors(8) * 2, BOTH, {"causal": True}),
    "grouped heads with padding": (lambda: attention(groups=2), lambda: vectors(4, 8), BOTH, {"key_mask": KEY_MASK}),
    "attention with a mask": (
        attention, lambda: vectors(8, 8), BOTH, {"mask": torch.rand(8, 8) > 0.3, "causal": True},
    ),
    "a language model": (language_model, lambda: (TOKENS,), X, {}),
    "a language model with padding": (language_model, lambda: (TOKENS,), X, {"key_mask": KEY_MASK}),
    "learned positions": (lambda: language_model(learned_positions=16), lambda: (TOKENS,), X, {}),
    "as many learned positions": (lambda: language_model(learned_positions=8), lambda: (TOKENS,), X, {}),
    "grouped heads of a language model": (
        lambda: language_model(groups=2, norm=nn.RMSNorm, window=5), lambda: (TOKENS,), X, {},
    ),
    "a transformer": (transformer, lambda: vectors(8, 4), BOTH, {}),
    "a transformer with padding": (transformer, lambda: vectors(8, 4), BOTH, {"source_key_mask": KEY_MASK}),
}  # fmt: skip
QUICK = {"attention of one tensor, causal"}


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a model whose parameters are random, so that no output is 0, and its inputs."""
    model, given = CASES[name][0]().to(dtype), CASES[name][1]()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model, tuple([each.to(dtype) if each.is_floating_point() else each for each in given])


def sharded(model: nn.Module, ranks: int, split: Mapping[str, str], given: tuple[Tensor, ...], call: Call) -> Any:
    """Return a copy of a model that is sharded on this rank, and the plan."""
    mine = copy.deepcopy(model)
    plan = shard(mine, init_device_mesh("cpu", (ranks,), mesh_dim_names=("sequence",)), split, *given, **call)
    return mine, plan


def loss(output: Tensor) -> Tensor:
    return output.square().mean()


def each_case() -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("name", each_case())
def test_outputs_gradients_and_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the whole model and of the plan, and nothing else is sent, in the backward pass neither."""
    model, given = made(name)
    _, _, split, call = CASES[name]
    expected = copy.deepcopy(model)
    result = expected(*given, **call)
    loss(result).backward()
    inside, send = [0, 0], dist.all_to_all_single

    def counting(output: Tensor, input: Tensor, *args: Any, **options: Any) -> Any:
        inside[dist.get_rank()] += input.numel() * input.element_size()
        return send(output, input, *args, **options)

    monkeypatch.setattr(dist, "all_to_all_single", counting)

    def work(rank: int) -> None:
        mine, plan = sharded(model, 2, split, given, call)
        with Sent() as sent:
            output = mine(*given, **call)
            with ExplicitRedistributionContext():
                loss(output).backward()
        torch.testing.assert_close(output, result)
        for (path, parameter), other in zip(mine.named_parameters(), expected.parameters(), strict=True):
            gradient = parameter.grad.full_tensor()
            torch.testing.assert_close(gradient, other.grad, msg=lambda text, path=path: f"{path}: {text}")
        said = [(each.collective, int(each.bytes)) for each in plan.moves if each.side != "inside"]
        assert sorted(sent.bytes) == sorted([(COLLECTIVES[name], size) for name, size in said])
        assert inside[rank] == sum([int(each.bytes) for each in plan.moves if each.side == "inside"])

    on_ranks(2, work)


def test_the_text_of_a_plan(golden: Any) -> None:
    split = {"x": "sequence", "h": "tensor", "f": "tensor"}
    sizes = {"sequence": 4, "tensor": 2}
    plan = plan_sharding(language_model(), sizes, split, TOKENS, axes="b x", names={"L1.weight": "f m"})
    golden("sequence_plan", f"{plan}\n\n{plan.explain('x')}")


@pytest.mark.slow
def test_a_mesh_axis_that_an_attention_reads_across_is_not_for_data() -> None:
    assert plan_sharding(language_model(), {"s": 2}, {"x": "s"}, TOKENS, axes="b x").data == ()
    assert plan_sharding(language_model(), {"s": 2}, {"b": "s"}, TOKENS, axes="b x").data == ("s",)
    plan = plan_sharding(language_model(), {"d": 2, "s": 2}, {"b": "d", "x": "s"}, TOKENS, axes="b x")
    assert plan.data == ("d",)


def test_causal_attention_alone_exchanges_halves() -> None:
    def sent(**call: Any) -> set[str]:
        plan = plan_sharding(attention(), {"s": 2}, {"x": "s", "y": "s"}, *vectors(8, 8), **call)
        return {each.collective for each in plan.moves if each.side == "inside"}

    assert sent() == {"ring"}
    assert sent(causal=True) == {"ring", "all-to-all"}


# Refused


class TokenTypes(nn.Module):
    """A learned mask: a bias by position."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.bias = attention(), nn.Parameter(torch.rand(8, 8))

    @circuit("b x m -> b x m")
    def forward(self, vectors: Tensor) -> Tensor:
        return self.attend(vectors, vectors, self.bias)


class Split(nn.Module):
    """A mask that is computed from what is split."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = attention()

    @circuit("b x m -> b x m")
    def forward(self, vectors: Tensor) -> Tensor:
        return self.attend(vectors, vectors, key_mask=vectors[..., 0] > 0)


def vision_transformer(**options: Any) -> nn.Module:
    return models.VisionTransformer(28, 7, m=16, k=4, h=4, f=32, depth=1, classes=10, in_channels=1, **options)


SIZES = {"s": 2, "t": 2}
WRONG: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[Tensor, ...], Call, str]] = {
    "keys without queries": (attention, {"x": "s"}, (), {}, "x over s: attention .* whole: split y over s too"),
    "a memory without its target": (transformer, {"x": "s"}, (), {}, "memory_attention .*: split y over s too"),
    "a length that the ranks do not divide": (
        language_model, {"x": "s"}, (TOKENS[:, :7],), {"axes": "b x"}, "x has size 7 .* 2 ranks of s do not divide",
    ),
    "a class token": (
        vision_transformer, {"x": "s"}, (torch.zeros(2, 1, 28, 28),), {"axes": "b c H W"}, "x has size 17 .*divide",
    ),
    "patches of an image, which have no x": (
        lambda: vision_transformer(class_token=False), {"x": "s"}, (torch.zeros(2, 1, 28, 28),), {"axes": "b c H W"},
        "x over s: add in VisionTransformer .*with its own x",
    ),
    "two axes of the mesh": (
        language_model, {"x": ("s", "t")}, (TOKENS,), {"axes": "b x"}, "x over s: attention .* across one mesh axis",
    ),
    "dropout": (lambda: transformer(0.1), {"x": "s", "y": "s"}, (), {}, "x over s: attention in enc.* draws random"),
    "dropout of attention weights": (
        lambda: attention(dropout=0.1), {"x": "s", "y": "s"}, (), {}, "over s: attention .*draws random numbers",
    ),
    "channels": (attention, {"x": "s", "y": "s", "m": "s"}, (), {}, "has y .* and m"),
    "the inside of a head": (attention, {"x": "s", "y": "s", "k": "s"}, (), {}, "k is inside"),
    "heads over the same mesh axis": (attention, {"x": "s", "y": "s", "h": "s"}, (), {}, "both split over this mesh"),
    "a learned mask": (TokenTypes, {"x": "s"}, vectors(8), {"axes": "b x m"}, "needs a gradient; .* masks may"),
    "a mask of what is split": (Split, {"x": "s"}, vectors(8), {"axes": "b x m"}, "over s: "),
    "positions after padding": (
        lambda: language_model(learned_positions=16), {"x": "s"}, (TOKENS,), {"key_mask": KEY_MASK},
        "embedding in positions .*has x",
    ),
}  # fmt: skip


@pytest.mark.every(6)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_plans_are_refused_by_name(name: str) -> None:
    make, split, given, options, message = WRONG[name]
    with pytest.raises(CircuitError, match=f"(?s){message}"):
        plan_sharding(make(), SIZES, split, *given, **options)


@pytest.mark.slow
def test_a_definition_that_reads_across_the_sequence_is_an_error() -> None:
    model, given = made("a language model")

    def work(rank: int) -> None:
        mine, _ = sharded(model, 2, X, given, {})
        with pytest.raises(RuntimeError, match="redistribution"):
            mine(*given)

    with definitions():
        on_ranks(2, work)
