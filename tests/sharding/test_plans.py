"""Plans: where a named axis is in every parameter, what follows from it, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from circuits import CircuitError, circuit, einsum, plan_sharding, rearrange, repeat

IMAGE = torch.zeros(2, 1, 28, 28)
NAMES = {"L1.weight": "f m"}


def attention(**options: Any) -> nn.Module:
    return models.MultiHeadAttention(16, 4, 4, **options)


def language_model(**options: Any) -> nn.Module:
    return models.LanguageModel(12, 16, 4, 4, 32, 2, **options)


def vision_transformer() -> nn.Module:
    return models.VisionTransformer(28, 7, m=16, k=4, h=4, f=32, depth=2, classes=10, in_channels=1)


def moves(plan: Any) -> list[tuple[str, str, str, str]]:
    return [(each.at, each.pass_, each.collective, each.mesh_axis) for each in plan.moves]


@pytest.mark.smoke
def test_heads_are_split_in_all_maps_of_attention_and_added_up_after_the_last() -> None:
    plan = plan_sharding(attention(), {"tensor": 2}, {"h": "tensor"})
    assert {each.name: dict(each.dims) for each in plan.parameters} == {
        "Lq.weight": {"tensor": 0}, "Lk.weight": {"tensor": 0}, "Lv.weight": {"tensor": 0}, "Lo.weight": {"tensor": 1},
    }  # fmt: skip
    assert moves(plan) == [("Lo", "forward", "all-reduce", "tensor")]
    assert plan.bytes == 4 * 16 * 16 * 4 // 2
    assert str(plan.moves[0].bytes) == "64*y"


@pytest.mark.slow
def test_groups_of_keys_are_split_with_the_heads() -> None:
    plan = plan_sharding(attention(groups=2), {"tensor": 2}, {"h": "tensor", "g": "tensor"})
    assert {each.name: each.text for each in plan.parameters if each.name != "Lo.weight"} == {
        "Lq.weight": "h over tensor (axis 0)",
        "Lk.weight": "g over tensor (axis 0)",
        "Lv.weight": "g over tensor (axis 0)",
    }


@pytest.mark.slow
def test_a_layer_adds_up_once_in_each_direction_for_attention_and_once_for_the_feed_forward_network() -> None:
    plan = plan_sharding(
        vision_transformer(), {"data": 2, "tensor": 2}, {"b": "data", "h": "tensor", "f": "tensor"}, IMAGE,
        axes="b c H W", names=NAMES,
    )  # fmt: skip
    expected = []
    for layer in ("layers.0", "layers.1"):
        expected += [(f"{layer}.attention.Lo", "forward"), (f"{layer}.feed_forward.L2", "forward")]
        expected += [(f"{layer}.attention_norm", "backward"), (f"{layer}.feed_forward_norm", "backward")]
    assert sorted((at, pass_) for at, pass_, *_ in moves(plan)) == sorted(expected)
    assert plan.data == ("data",)
    first = next(each for each in plan.parameters if each.name == "layers.0.feed_forward.L2.weight")
    assert dict(first.dims) == {"tensor": 1}  # without a name of its own: it contracts the axis that is split
    assert first.bytes == 16 * 32 * 4 // 4
    move = next(each for each in plan.moves if each.at == "layers.0.attention.Lo")
    assert move.bytes == 2 * 17 * 16 * 4 // 2  # the tensor of one data rank


def test_a_vocabulary_is_split_in_the_table_and_in_the_head() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    plan = plan_sharding(language_model(), {"tensor": 2}, {"v": "tensor"}, tokens, axes="b x")
    found = {(each.at, each.pass_, each.collective) for each in plan.moves}
    assert found == {
        ("embedding", "forward", "all-reduce"), ("norm", "backward", "all-reduce"), ("", "forward", "all-gather"),
    }  # fmt: skip


@pytest.mark.slow
def test_an_axis_with_the_name_of_a_mesh_axis_needs_no_saying() -> None:
    said = plan_sharding(attention(), {"h": 2}, {"h": "h"})
    assert plan_sharding(attention(), {"h": 2}).parameters == said.parameters


def test_one_axis_over_two_mesh_axes() -> None:
    plan = plan_sharding(attention(), {"a": 2, "b": 2}, {"h": ("a", "b")})
    assert dict(plan.parameters[0].dims) == {"a": 0, "b": 0}
    assert [each.mesh_axis for each in plan.moves] == ["a", "b"]
    assert plan.bytes == 4 * 16 * 16 * 4 // 4


def test_the_bias_of_a_sum_needs_no_sum_of_its_gradient() -> None:
    plan = plan_sharding(attention(bias=True), {"tensor": 2}, {"h": "tensor"})
    assert not [each for each in plan.moves if each.side == "parameter"]


class Scaled(nn.Module):
    """Heads, each scaled alike by one weight for every channel, which is not split."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.scale = nn.Parameter(torch.rand(2))

    @circuit("b m -> b m")
    def forward(self, x: Tensor) -> Tensor:
        heads = rearrange(self.inward(x), "b (h k) -> b h k", h=4) * self.scale
        return self.outward(rearrange(heads, "b h k -> b (h k)"))


def test_the_gradient_of_a_whole_parameter_among_parts_is_added_up() -> None:
    plan = plan_sharding(Scaled(), {"tensor": 2}, {"h": "tensor"}, torch.zeros(3, 8))
    assert [(each.at, each.side, each.pass_) for each in plan.moves if each.side == "parameter"] == [
        ("scale", "parameter", "backward")
    ]


def test_what_depends_on_the_ranks_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    image = torch.zeros(4, 1, 8, 8)
    plan = plan_sharding(model, {"data": 2}, {"b": "data"}, image, axes="b c h w")
    assert plan.notes == (
        "batch_norm in 1: its statistics are those of each rank's part of b; on CUDA "
        "nn.SyncBatchNorm.convert_sync_batchnorm makes them those of all ranks",
        "dropout in 2: it draws alike on ranks whose generators have the same seed",
    )
    assert "\n".join(plan.notes) in plan.table(width=None)
    assert not plan_sharding(model.eval(), {"data": 2}, {"b": "data"}, image, axes="b c h w").notes


def test_parameters_may_be_copies_over_an_axis_for_data() -> None:
    options: dict[str, Any] = {"axes": "b m"}
    plan = plan_sharding(nn.Linear(8, 8), {"data": 2}, {"b": "data"}, torch.zeros(4, 8), replicate="data", **options)
    assert {each.text for each in plan.parameters} == {"whole"}
    assert plan.bytes == 4 * (8 * 8 + 8)
    assert "copies over data, whose gradients, 288 B, are all-reduced" in str(plan)
    mesh, split = {"copies": 2, "data": 2}, {"b": ("copies", "data")}
    both = plan_sharding(nn.Linear(8, 8), mesh, split, torch.zeros(4, 8), replicate=("copies",), **options)
    assert {each.text for each in both.parameters} == {"fully sharded over data"}
    with pytest.raises(CircuitError, match=r"replicate: tensor is no mesh axis for data, .*: none"):
        plan_sharding(attention(), {"tensor": 2}, {"h": "tensor"}, replicate="tensor")


def test_the_text_of_a_plan(golden: Any) -> None:
    plan = plan_sharding(
        vision_transformer(), {"data": 2, "tensor": 2}, {"b": "data", "h": "tensor", "f": "tensor"}, IMAGE,
        axes="b c H W", names=NAMES,
    )  # fmt: skip
    golden("sharding_plan", f"{plan}\n\n{plan.explain('h')}")


def test_a_model_is_not_changed() -> None:
    model = attention()
    before = {name: (id(each), each.clone()) for name, each in model.named_parameters()}
    plan_sharding(model, {"tensor": 2}, {"h": "tensor"})
    assert {name: id(each) for name, each in model.named_parameters()} == {
        name: each[0] for name, each in before.items()
    }
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


# Refused


class Bare(nn.Module):
    """A weight that a function reads, whose result no module returns."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Parameter(torch.rand(8, 4)), nn.Parameter(torch.rand(4, 8))

    @circuit("b m -> b m")
    def forward(self, x: Tensor) -> Tensor:
        hidden = einsum(x, self.outward, "b m, f m -> b f")
        return einsum(hidden, self.inward, "b f, m f -> b m").tanh()


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 8))

    @circuit("b m -> b m")
    def forward(self, x: Tensor) -> Tensor:
        return einsum(x, self.weight, "b m, n m -> b n")


class Twice(nn.Module):
    """One map, given a whole tensor and then one that is split."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.shared = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(x) + self.shared(self.up(x))


def across(f: Any, signature: str = "b m -> b m") -> Any:
    return circuit(signature)(f)


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))


WRONG: dict[str, tuple[Any, Any, Mapping[str, Any], tuple[Tensor, ...], dict[str, Any], str]] = {
    "an axis that nothing carries": (attention(), {"t": 2}, {"q": "t"}, (), {}, "q: no tensor of MultiHeadAttention"),
    "an unknown mesh axis": (attention(), {"t": 2}, {"h": "tensor"}, (), {}, "h: the mesh has no axis 'tensor'"),
    "a mesh axis twice": (attention(), {"t": 2}, {"h": ("t", "t")}, (), {}, "names a mesh axis twice"),
    "nothing": (attention(), {"t": 2}, {}, (), {}, "no axis is split"),
    "no mesh": (attention(), 2, {"h": "t"}, (), {}, "a mesh whose axes have names"),
    "a mesh of no ranks": (attention(), {"t": 0}, {"h": "t"}, (), {}, "mesh axis t: its size"),
    "heads that the ranks do not divide": (attention(), {"t": 3}, {"h": "t"}, (), {}, "h has size 4 .*3 ranks of t"),
    "heads over two mesh axes": (attention(), {"a": 2, "b": 4}, {"h": ("a", "b")}, (), {}, "h has .*8 ranks of a b"),
    "what all heads hide": (
        attention(), {"t": 2}, {"h": "t"}, (torch.zeros(2, 5, 16), torch.zeros(2, 5, 16)),
        {"head_mask": torch.zeros(4, 5, 5)}, "h over t: all over h .*reads across h",
    ),
    "groups that the ranks do not divide": (
        attention(groups=2), {"t": 4}, {"h": "t", "g": "t"}, (), {}, "g has size 2 in .*4 ranks of t",
    ),
    "heads that ranks do not divide, beside whole groups": (
        attention(groups=2), {"t": 8}, {"h": "t", "g": None}, (), {}, "h has size 4 in .*8 ranks of t do not divide",
    ),
    "heads without their groups": (
        attention(groups=2), {"t": 2}, {"h": "t"}, (), {}, "split g over t too, or keep it whole by {'g': None}",
    ),
    "the inside of a group": (attention(), {"t": 2}, {"k": "t"}, (), {}, r"k is inside \(h k\) of Lq.weight"),
    "two axes of one parameter": (attention(), {"t": 2}, {"h": "t", "m": "t"}, (), {}, r"Lq.weight .*has h .* and m"),
    "one name at both ends": (
        nn.Sequential(nn.Linear(8, 8)), {"t": 2}, {"m": "t"}, (torch.zeros(2, 8),),
        {"names": {"0.weight": "m m"}}, r"0.weight .*has m \(axis 0\) and m \(axis 1\)",
    ),
    "keys without their queries": (attention(), {"t": 2}, {"x": "t"}, (), {}, "attention .*whole: split y over t too"),
    "a norm": (
        nn.LayerNorm(8), {"t": 2}, {"m": "t"}, (torch.zeros(2, 8),), {"axes": "b m"}, "m over t: layer_norm .*across",
    ),
    "a window": (
        nn.Conv2d(1, 1, 3), {"t": 2}, {"h": "t"}, (torch.zeros(2, 1, 8, 8),), {"axes": "b c h w"},
        "h over t: conv2d .*it reads across h",
    ),
    "channels of a convolution": (
        nn.Conv2d(2, 2, 3), {"t": 2}, {"c": "t"}, (torch.zeros(2, 2, 8, 8),), {"axes": "b c h w"},
        "c over t: conv2d",
    ),
    "a mean over the axis": (
        across(lambda x: x - x.mean(-1, keepdim=True)), {"t": 2}, {"m": "t"}, (), {}, "m over t: mean .*across m",
    ),
    "positions": (across(lambda x: x.flip(-1)), {"t": 2}, {"m": "t"}, (), {}, "m over t: flip .*has no placement rule"),
    "a Fourier transform": (
        across(lambda x: torch.fft.fft(x).real), {"t": 2}, {"m": "t"}, (), {}, "fft_fft .*has no placement rule",
    ),
    "sums of no module": (Bare(), {"t": 2}, {"f": "t"}, (torch.zeros(3, 8),), {}, "einsum .*a module"),
    "a map of whole tensors that is given a part": (
        Twice(), {"t": 2}, {"f": "t"}, (torch.zeros(2, 8),), {"names": {"up.weight": "f m"}},
        "f over t: linear in shared .*shared.weight .*is whole, and what it meets is split",
    ),
    "dropout": (
        with_dropout(), {"t": 2}, {"f": "t"}, (torch.zeros(2, 8),), {"axes": "b m", "names": {"0.weight": "f m"}},
        "dropout .*draws random numbers",
    ),
    "a part of an axis": (
        across(lambda x: x[:, :4], "b m -> b n"), {"t": 2}, {"m": "t"}, (), {"sizes": {"m": 8}}, r"m over t: index",
    ),
    "names of another parameter": (
        attention(), {"t": 2}, {"f": "t"}, (), {"names": {"L9.weight": "f m"}}, "no parameter .* ends in L9.weight",
    ),
    "too many names": (
        attention(), {"t": 2}, {"f": "t"}, (), {"names": {"Lq.weight": "f g m"}}, "has 2 axes, and 'f g m' names 3",
    ),
    "batch statistics over a tensor axis": (
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), {"t": 2}, {"n": "t"}, (torch.zeros(4, 8),),
        {"axes": "b m", "names": {"0.weight": "n m"}}, "n over t: batch_norm",
    ),
}  # fmt: skip


@pytest.mark.every(15)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_plans_are_refused_by_name(name: str) -> None:
    target, mesh, split, inputs, options, message = WRONG[name]
    with pytest.raises(CircuitError, match=f"(?s){message}"):
        plan_sharding(target, mesh, split, *inputs, **options)


# What each rank makes itself ------------------------------------------------------------------------------------------


@circuit("b x m -> b x m")
def own_positions(t: Tensor) -> Tensor:
    return t + torch.arange(t.shape[1])[:, None]


@circuit("b x m -> b x m")
def own_weights(t: Tensor) -> Tensor:
    return t * torch.eye(t.shape[1])[0][:, None]


@circuit("b x m -> b x m")
def own_order(t: Tensor) -> Tensor:
    return t[:, torch.randperm(t.shape[1])]


@circuit("b x m -> b x m")
def copies(t: Tensor) -> Tensor:
    start = torch.zeros(t.shape[0], 1, t.shape[2])
    token = repeat(torch.ones(t.shape[2]), "m -> b x m", b=t.shape[0], x=t.shape[1])
    other = torch.arange(t.shape[2]).expand(t.shape[0], 1, -1) + torch.arange(t.shape[2]).repeat(t.shape[0], 1, 1)
    return t + start + token + other + torch.full((t.shape[0], 1, 1), 2.0)


@circuit("b x m -> b x m")
def periodic(t: Tensor) -> Tensor:
    return t * torch.arange(2).repeat(t.shape[1] // 2)[:, None]


@circuit("b x m -> b x m")
def noisy(t: Tensor) -> Tensor:
    return t + torch.randn(t.shape)


@pytest.mark.parametrize(("target", "operation"), [
    (own_positions, "arange"), (own_weights, "eye"), (own_order, "randperm"), (periodic, "repeat"),
])  # fmt: skip
def test_positions_of_a_part_are_not_those_of_the_whole(target: Any, operation: str) -> None:
    with pytest.raises(CircuitError, match=rf"x over data: {operation}.*: (each rank would make it|.* one is whole)"):
        plan_sharding(target, {"data": 2}, {"x": "data"}, torch.randn(2, 4, 3))
    assert plan_sharding(target, {"data": 2}, {"b": "data"}, torch.randn(2, 4, 3)).data == ("data",)


def test_copies_along_a_batch_may_be_made_by_each_rank() -> None:
    plan = plan_sharding(copies, {"data": 2}, {"b": "data"}, torch.randn(2, 4, 3))
    assert (plan.data, plan.notes) == (("data",), ())


@pytest.mark.slow
def test_noise_is_said_over_data_and_refused_elsewhere() -> None:
    plan = plan_sharding(noisy, {"data": 2}, {"b": "data"}, torch.randn(2, 4, 3))
    assert any("it draws alike" in note for note in plan.notes)
    layer = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    with pytest.raises(CircuitError, match="draws random numbers"):
        plan_sharding(
            lambda t: noisy(layer(t)), {"tensor": 2}, {"f": "tensor"}, torch.randn(2, 4, 3), names={"0.weight": "f m"}
        )
