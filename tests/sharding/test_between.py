# This file uses private names of torch: its simulation of many ranks in one process.
# pyright: reportPrivateImportUsage=false
"""Tensors between modules that are split along a sequence, where heads and hidden units are split inside of them."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from circuits import CircuitError, einsum, plan_sharding
from tests.sharding.test_shard import CASES, HEADS, NAMES, Case, compare, compare_bytes, inputs, process_group

__all__ = ["process_group"]  # a fixture that each test here uses

TOKENS = torch.randint(0, 12, (2, 6))
INSIDE = HEADS | {"f": "tensor"}
BETWEEN = {"between": {"x": "tensor"}}


class Learned(nn.Module):
    """A language model with a table of positions, to which gradients flow from whole tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 16)
        self.positions = nn.Parameter(torch.randn(8, 16))
        self.layers = nn.ModuleList([models.EncoderLayer(16, 4, 4, 32) for _ in range(2)])

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return einsum(x, self.embedding.weight, "... x m, v m -> ... x v")


class Mixing(nn.Module):
    """A layer between modules that mixes positions, and needs all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = models.EncoderLayer(16, 4, 4, 32), models.EncoderLayer(16, 4, 4, 32)
        self.over = nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.over(self.before(x)))


def language_model(**options: Any) -> models.LanguageModel:
    return models.LanguageModel(12, 16, 4, 4, 32, 2, **options)


MORE: dict[str, Case] = {
    "between the layers of a language model": (
        language_model, lambda: (TOKENS,), INSIDE, {"names": NAMES} | BETWEEN, {},
    ),
    "between layers, where heads alone are split": (language_model, lambda: (TOKENS,), HEADS, BETWEEN, {}),
    "between the vocabulary and the layers": (
        language_model, lambda: (TOKENS,), INSIDE | {"v": "tensor"}, {"names": NAMES} | BETWEEN, {},
    ),
    "between layers with grouped heads": (
        lambda: language_model(groups=2, norm=nn.RMSNorm), lambda: (TOKENS,),
        INSIDE | {"g": "tensor"}, {"names": NAMES} | BETWEEN, {},
    ),
    "between the layers of a decoder": (
        lambda: models.Transformer(16, 4, 4, 32, 1, 1, dropout=0.0), lambda: (inputs(2, 6, 16), inputs(2, 4, 16)),
        INSIDE, {"names": NAMES, "between": {"y": "tensor"}}, {},
    ),
    "between the layers of an encoder": (
        lambda: models.Transformer(16, 4, 4, 32, 1, 1, dropout=0.0), lambda: (inputs(2, 6, 16), inputs(2, 4, 16)),
        INSIDE, {"names": NAMES} | BETWEEN, {},
    ),
    "after a table of positions": (
        Learned, lambda: (TOKENS,), INSIDE | {"v": "tensor"}, {"names": NAMES, "axes": "b x"} | BETWEEN, {},
    ),
    "around a layer that mixes positions": (
        Mixing, lambda: (inputs(2, 6, 16),), INSIDE, {"names": NAMES, "axes": "b x m"} | BETWEEN, {},
    ),
}  # fmt: skip
QUICK = ["between the vocabulary and the layers"]
EACH = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MORE]


@pytest.fixture(autouse=True)
def more(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in MORE.items():
        monkeypatch.setitem(CASES, *case)


@pytest.mark.parametrize("name", EACH)
def test_outputs_and_gradients_are_those_of_the_whole_model(name: str) -> None:
    compare(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_so_they_are_by_definitions(name: str) -> None:
    compare(name, by_definition=True)


@pytest.mark.parametrize("name", EACH)
def test_what_is_sent_is_what_the_plan_says(name: str) -> None:
    compare_bytes(name)


def planned(name: str, **options: Any) -> Any:
    make, given, split, more, _ = MORE[name]
    given = [each.float() if each.is_floating_point() else each for each in given()]
    return plan_sharding(make(), {"tensor": 2}, split, *given, **{**more, **options})


def moves(name: str, **options: Any) -> list[tuple[str, str, str, int]]:
    """The communications of tensors between modules: where, pass, collective, bytes."""
    found = [each for each in planned(name, **options).moves if each.side != "parameter"]
    return [(each.at, each.pass_, each.collective, each.bytes) for each in found]


def test_sums_are_added_up_in_parts_and_gathered_once_for_each_module() -> None:
    found = [each for each in moves("between the layers of a language model") if "1" in each[0]]
    part = 2 * 3 * 16 * 4  # batch, half of the positions, channels, bytes
    assert sorted(found) == sorted([
        ("layers.1.attention", "forward", "all-gather", part),
        ("layers.1.attention.Lo", "forward", "reduce-scatter", 2 * part),
        ("layers.1.feed_forward", "forward", "all-gather", part),
        ("layers.1.feed_forward.L2", "forward", "reduce-scatter", 2 * part),
        ("layers.1.attention", "backward", "reduce-scatter", 2 * part),
        ("layers.1.attention.Lo", "backward", "all-gather", part),
        ("layers.1.feed_forward", "backward", "reduce-scatter", 2 * part),
        ("layers.1.feed_forward.L2", "backward", "all-gather", part),
    ])  # fmt: skip


def test_without_it_as_much_is_sent_between_modules() -> None:
    """An all-reduce of n ranks sends 2(n - 1)/n of a tensor, and a gathering or a sum in parts half of that."""
    times = {"all-reduce": 2, "reduce-scatter": 1, "all-gather": 2}  # of the bytes that it is given, by two ranks

    def sent(**options: Any) -> int:
        found = moves("between the layers of a language model", **options)
        return sum([times[kind] * size for at, _, kind, size in found if at.startswith("layers")])

    assert sent() == sent(between=None) > 0


def test_a_whole_tensor_is_split_where_it_meets_parts() -> None:
    found = moves("after a table of positions")
    assert ("layers.0", "forward", "none", 0) in found
    assert ("embedding", "forward", "all-reduce", 2 * 6 * 16 * 4) in found


def test_the_plan_says_what_is_between_modules() -> None:
    plan = planned("between the layers of a language model")
    assert "f over tensor, x between modules over tensor" in str(plan)
    assert plan.explain("x").startswith("x is split into 2 parts between modules, over tensor")
    assert "layer_norm in norm: 2 x m is split along x" in plan.explain("x")


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another mesh axis": (HEADS, {"between": {"x": "rows"}}, "between: x: the mesh has no axis 'rows'; it has data"),
    "an axis that is split everywhere": (
        INSIDE, {"between": {"f": "tensor"}}, "between: f is split over tensor everywhere",
    ),
    "two axes of one mesh axis": (
        HEADS, {"between": {"x": "tensor", "m": "tensor"}}, "between: tensor can split one axis .*not x and m",
    ),
    "a mesh axis that splits nothing": ({"h": "tensor"}, {"between": {"x": "data"}}, "between: data splits no module"),
    "a mesh axis for data": (
        {"h": "tensor", "b": "data"}, {"between": {"x": "data"}, "axes": "b x"}, "between: data splits no module",
    ),
    "an axis that no tensor has": (HEADS, {"between": {"w": "tensor"}}, "w: no tensor of LanguageModel has an axis"),
    "whole groups": (
        HEADS | {"g": None}, {"between": {"x": "tensor"}, "groups": 1},
        "its inputs are split along different axes",
    ),
    "a size that ranks do not divide": (
        HEADS, {"between": {"x": "tensor"}, "sizes": {"x": 5}}, "x has size 5 in .*the 2 ranks of tensor do not divide",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_between_modules_is_refused(name: str) -> None:
    split, options, message = WRONG[name]
    size = options.get("sizes", {}).get("x", 6)
    mesh: Mapping[str, int] = {"data": 2, "tensor": 2}
    given = () if "sizes" in options else (torch.zeros(2, size, dtype=torch.long),)
    options = {"names": NAMES, **options, **({"axes": "b x"} if "sizes" in options else {})}
    model = language_model(groups=options.pop("groups", None))
    with pytest.raises(CircuitError, match=message):
        plan_sharding(model, mesh, split, *given, **options)


class Both(nn.Module):
    """One tensor read by a weight that is split and by one that is whole, in one module, where it cannot be mended."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.whole = nn.Parameter(torch.randn(8, 16)), nn.Parameter(torch.randn(16, 16))
        self.back, self.norm = nn.Linear(8, 16, bias=False), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.back(nn.functional.linear(x, self.split)))
        return (x @ self.whole).softmax(1) + self.back(nn.functional.linear(x, self.split))


def test_an_operation_that_cannot_be_mended_is_refused_with_its_place() -> None:
    names = {"split": "f m", "back.weight": "m f", "whole": "m n"}
    with pytest.raises(CircuitError, match=r"over tensor: .* in Both \(.*test_between.py:\d+\)"):
        plan_sharding(
            Both(), {"tensor": 2}, {"f": "tensor"}, torch.randn(2, 6, 16), axes="b x m", names=names,
            between={"x": "tensor"},
        )  # fmt: skip
