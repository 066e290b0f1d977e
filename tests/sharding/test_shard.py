# This file uses private names of torch: its simulation of many ranks in one process.
# pyright: reportPrivateImportUsage=false
"""Sharded models beside whole ones, on ranks that one process simulates: outputs, gradients, steps, and bytes sent."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._local_tensor import LocalTensor, LocalTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._utils import ExplicitRedistributionContext
from torch.testing._internal.distributed.fake_pg import FakeStore

import models
from circuits import CircuitError, definitions, shard
from circuits.sharding import hooks
from circuits.sharding.checked_pass import entering, leaving
from models.scaled_dot_product import attention as attend
from tests.sharding.ranks import COLLECTIVES, Sent

RANKS = 2
NAMES = {"L1.weight": "f m"}
HEADS = {"h": "tensor"}


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    """A process group whose collectives do nothing; LocalTensorMode runs them on the ranks that it simulates."""
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    dist.destroy_process_group()


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (RANKS,), mesh_dim_names=("tensor",))


def attention(**options: Any) -> nn.Module:
    return models.MultiHeadAttention(16, 4, 4, **options)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


TOKENS = torch.randint(0, 12, (2, 5))
MASK = torch.tensor([[True, True, True, False, False], [True] * 5])
Options = dict[str, Any]
Case = tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], dict[str, Any], Options, Options]
CASES: dict[str, Case] = {
    "attention": (attention, lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS, {}, {}),
    "attention with biases": (
        lambda: attention(bias=True), lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS, {}, {},
    ),
    "attention of one tensor, causal": (attention, lambda: (inputs(2, 5, 16),) * 2, HEADS, {}, {"causal": True}),
    "attention in a window": (
        lambda: attention(window=2), lambda: (inputs(2, 5, 16),) * 2, HEADS, {}, {"causal": True},
    ),
    "attention with padding": (
        attention, lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS, {}, {"key_mask": MASK},
    ),
    "attention with a mask": (
        attention, lambda: (inputs(2, 5, 16), inputs(2, 5, 16)), HEADS, {}, {"mask": torch.rand(5, 5) > 0.3},
    ),
    "grouped heads": (
        lambda: attention(groups=2), lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS | {"g": "tensor"}, {}, {},
    ),
    "grouped heads with padding": (
        lambda: attention(groups=2), lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS | {"g": "tensor"}, {},
        {"key_mask": MASK},
    ),
    "groups that are whole on all ranks": (
        lambda: attention(groups=2), lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS | {"g": None}, {}, {},
    ),
    "one group, with padding": (
        lambda: attention(groups=1), lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS | {"g": None}, {},
        {"key_mask": MASK},
    ),
    "groups that the ranks do not divide": (
        lambda: models.MultiHeadAttention(16, 4, 6, groups=3, bias=True),
        lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), HEADS | {"g": None}, {}, {},
    ),
    "one group in a language model": (
        lambda: models.LanguageModel(12, 16, 4, 4, 32, 2, groups=1, norm=nn.RMSNorm), lambda: (TOKENS,),
        HEADS | {"f": "tensor", "g": None}, {"names": NAMES}, {},
    ),
    "the channels of attention": (
        attention, lambda: (inputs(2, 3, 16), inputs(2, 5, 16)), {"m": "tensor"}, {}, {},
    ),
    "hidden units of an MLP": (
        lambda: models.MLP(x=3, y=4, m=8, k=6), lambda: (inputs(2, 3, 4),), {"u": "tensor"},
        {"axes": "b x y", "names": {"linear_relu_stack.0.weight": "u i"}}, {},
    ),
    "classes of an MLP": (
        lambda: models.MLP(x=3, y=4, m=8, k=6), lambda: (inputs(2, 3, 4),), {"k": "tensor"}, {"axes": "b x y"}, {},
    ),
    "a vision transformer": (
        lambda: models.VisionTransformer(28, 7, m=16, k=4, h=4, f=32, depth=2, classes=10, in_channels=1),
        lambda: (inputs(2, 1, 28, 28),), HEADS | {"f": "tensor"}, {"axes": "b c H W", "names": NAMES}, {},
    ),
    "a language model": (
        lambda: models.LanguageModel(12, 16, 4, 4, 32, 2), lambda: (TOKENS,), HEADS | {"f": "tensor"},
        {"names": NAMES}, {},
    ),
    "a language model and its vocabulary": (
        lambda: models.LanguageModel(12, 16, 4, 4, 32, 2), lambda: (TOKENS,),
        HEADS | {"f": "tensor", "v": "tensor"}, {"names": NAMES}, {},
    ),
    "grouped heads of a language model": (
        lambda: models.LanguageModel(12, 16, 4, 4, 32, 2, groups=2, norm=nn.RMSNorm), lambda: (TOKENS,),
        HEADS | {"g": "tensor"}, {}, {},
    ),
    "a transformer": (
        lambda: models.Transformer(16, 4, 4, 32, 1, 1, dropout=0.0), lambda: (inputs(2, 5, 16), inputs(2, 3, 16)),
        HEADS | {"f": "tensor"}, {"names": NAMES}, {},
    ),
}  # fmt: skip
QUICK = {
    "attention",
    "grouped heads",
    "groups that are whole on all ranks",
    "classes of an MLP",
    "a language model and its vocabulary",
}


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a model whose parameters are random, so that no output is 0, and its inputs."""
    model, given = CASES[name][0]().to(dtype), CASES[name][1]()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model, tuple([each.to(dtype) if each.is_floating_point() else each for each in given])


def whole(tensor: Any) -> Tensor:
    """Return a tensor that is the same on all simulated ranks."""
    found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found.reconcile() if isinstance(found, LocalTensor) else found


def give_each_rank_its_own(model: nn.Module) -> None:
    """Copy whole parameters for each simulated rank: ranks share a plain tensor, in whose memory all would step."""
    for parameter in model.parameters():
        local = parameter._local_tensor  # type: ignore[attr-defined]
        if not isinstance(local, LocalTensor):
            parameter._local_tensor = LocalTensor({rank: local.clone() for rank in range(RANKS)})  # type: ignore[attr-defined]


def loss(output: Tensor) -> Tensor:
    return output.square().mean()


def each_case() -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]


@pytest.mark.slow
@pytest.mark.parametrize("by_definition", [False, True], ids=["kernels", "definitions"])
@pytest.mark.parametrize("name", each_case())
def test_outputs_and_gradients_are_those_of_the_whole_model(name: str, by_definition: bool) -> None:
    compare(name, by_definition)


def compare(name: str, by_definition: bool = False) -> None:
    """Compare outputs and gradients of a case with those of the whole model."""
    model, given = made(name, torch.float64)
    _, _, split, options, call = CASES[name]
    expected = copy.deepcopy(model)
    result = expected(*given, **call)
    loss(result).backward()
    with LocalTensorMode(RANKS), definitions() if by_definition else contextlib.nullcontext():
        shard(model, mesh(), split, *given, **options, **call)
        output = model(*given, **call)
        loss(output).backward()
        torch.testing.assert_close(whole(output), result)
        for (path, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(whole(parameter.grad), other.grad, msg=lambda text, path=path: f"{path}: {text}")


class Redistributing(torch.autograd.Function):
    """The identity, whose backward pass has a communication that no code asks for."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        redistribute()
        return gradient


def redistribute() -> None:
    """Add tensors that are split along different axes."""
    with torch.no_grad():
        rows, columns = (distribute_tensor(torch.ones(2, 2), mesh(), [Shard(dim)]) for dim in (0, 1))
        _ = rows + columns


def test_backward_passes_are_checked_from_the_outputs_of_a_model_to_its_inputs() -> None:
    given = torch.ones(2, requires_grad=True)
    inside = leaving(Redistributing.apply(entering(given)))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="edistribution"):
            inside.sum().backward(retain_graph=True)
        redistribute()  # the pass that failed is over
    leaving(entering(Redistributing.apply(given))).sum().backward()  # another model is before this one
    with ExplicitRedistributionContext(enable=False):  # the user's own context is kept
        inside.sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [2, 2]


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [*[(name, torch.float64) for name in CASES], *[(name, torch.float32) for name in sorted(QUICK)]]
)
def test_weights_after_twenty_steps_are_those_of_the_whole_model(name: str, dtype: torch.dtype) -> None:
    model, given = made(name, dtype)
    _, _, split, options, call = CASES[name]
    expected = copy.deepcopy(model)

    def train(each: nn.Module) -> None:
        optimizer = torch.optim.SGD(each.parameters(), 0.05, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            loss(each(*given, **call)).backward()
            optimizer.step()

    train(expected)
    with LocalTensorMode(RANKS):
        shard(model, mesh(), split, *given, **options, **call)
        give_each_rank_its_own(model)
        train(model)
        for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(whole(parameter.detach()), other.detach())


@pytest.mark.every(4)
@pytest.mark.parametrize("name", each_case())
def test_what_is_sent_is_what_the_plan_says(name: str) -> None:
    compare_bytes(name)


def compare_bytes(name: str) -> None:
    """Compare the bytes that are sent in a case with those of its plan."""
    model, given = made(name, torch.float32)
    _, _, split, options, call = CASES[name]
    plan = shard(model, mesh(), split, *given, **options, **call)
    with Sent() as sent:
        loss(model(*given, **call)).backward()
    said = [(COLLECTIVES[each.collective], int(each.bytes)) for each in plan.moves if each.is_sent]
    assert sorted(sent.bytes) == sorted(said)


def test_signatures_see_whole_sizes_and_refuse_wrong_ones() -> None:
    model, given = made("attention", torch.float64)
    with LocalTensorMode(RANKS):
        shard(model, mesh(), HEADS, *given)
        with pytest.raises(CircuitError, match="m is 15 here"):
            model(given[0][..., :15], given[1])
        assert whole(model(*given)).shape == (2, 3, 16)  # the error left nothing behind


@pytest.mark.slow
def test_a_communication_that_is_not_in_the_plan_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sums(moves: Any) -> Any:
        return lambda module, args, result: result

    monkeypatch.setattr(hooks, "_on_results", without_sums)
    model, given = made("a vision transformer", torch.float64)
    _, _, split, options, _ = CASES["a vision transformer"]
    with LocalTensorMode(RANKS):
        shard(model, mesh(), split, *given, **options)
        with pytest.raises(RuntimeError, match="Implicit redistribution"):
            model(*given)


@pytest.mark.slow
def test_an_output_that_is_not_whole_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_on_results", lambda moves: lambda module, args, result: result)
    model, given = made("attention", torch.float64)
    with LocalTensorMode(RANKS):
        shard(model, mesh(), HEADS, *given)
        with pytest.raises(CircuitError, match="the plan says that it is whole"):
            model(*given)


@pytest.mark.slow
def test_tied_parameters_stay_one() -> None:
    model, given = made("a language model and its vocabulary", torch.float64)
    count = len(list(model.parameters()))
    _, _, split, options, _ = CASES["a language model and its vocabulary"]
    with LocalTensorMode(RANKS):
        shard(model, mesh(), split, *given, **options)
        assert len(list(model.parameters())) == count


@pytest.mark.slow
def test_a_refused_model_is_as_before() -> None:
    model = attention()
    before = dict(model.named_parameters())
    with pytest.raises(CircuitError, match="k is inside"):
        shard(model, mesh(), {"k": "tensor"})
    assert all(each is before[name] for name, each in model.named_parameters())
    assert not model._forward_hooks


@pytest.mark.slow
def test_a_sharded_model_is_not_sharded_again() -> None:
    model = attention()
    with LocalTensorMode(RANKS):
        shard(model, mesh(), HEADS)
        with pytest.raises(CircuitError, match="is sharded already"):
            shard(model, mesh(), HEADS)


def test_what_shard_does_not_take() -> None:
    with pytest.raises(CircuitError, match="shard takes a module, not builtin"):
        shard(F.gelu, mesh(), HEADS)  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="shard needs a DeviceMesh, not a dict: torch"):
        shard(attention(), {"tensor": 2}, HEADS)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_kernel_of_attention_refuses_tensors_that_are_split_along_queries() -> None:
    query = torch.randn(2, 4, 6, 8)
    with LocalTensorMode(RANKS):
        split, same = (distribute_tensor(query, mesh(), [each]) for each in (Shard(2), Replicate()))
        with pytest.raises(CircuitError, match="split alike along leading axes or heads"):
            attend(split, same, same)
        parts = distribute_tensor(query, mesh(), [Shard(1)])
        found = attend(parts, parts, parts, causal=True)
        torch.testing.assert_close(whole(found), attend(query, query, query, causal=True))
