# This file uses private names of torch: its simulation of many ranks in one process.
# pyright: reportPrivateImportUsage=false
"""Models of other libraries, split by names for the axes of their parameters, beside whole ones on simulated ranks."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._local_tensor import LocalTensorMode
from torch.distributed.tensor._utils import ExplicitRedistributionContext

from circuits import CircuitError, plan_sharding, shard
from tests import peers
from tests.sharding.test_shard import RANKS, mesh, process_group, whole

__all__ = ["process_group"]  # a fixture that each test here uses

MESH = {"tensor": RANKS}
HEADS = {"h": "tensor", "f": "tensor"}
FUSED = {"in_proj_weight": "(3 h k) m", "linear1.weight": "f m"}
LLAMA = {
    "q_proj.weight": "(h k) m", "k_proj.weight": "(g k) m", "v_proj.weight": "(g k) m", "gate_proj.weight": "f m",
    "up_proj.weight": "f m", "embed_tokens.weight": "v m", "lm_head.weight": "v m",
}  # fmt: skip


def torch_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "use_cache": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).eval()


def timm_vit() -> nn.Module:
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 4, "num_classes": 3}
    return peers.timm().models.VisionTransformer(**sizes)


def sequences() -> Tensor:
    return torch.randn(2, 5, 16, dtype=torch.float64)


Case = tuple[Callable[[], nn.Module], Callable[[], Tensor], dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "torch's layer, hidden units": (torch_layer, sequences, {"f": "tensor"}, {"names": FUSED}),
    "torch's encoder, hidden units": (
        lambda: nn.TransformerEncoder(torch_layer(), 2), sequences, {"f": "tensor"}, {"names": FUSED},
    ),
    "timm's vision transformer, heads of fused maps": (
        timm_vit, lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64), HEADS,
        {"names": {"qkv.weight": "(3 h k) m", "fc1.weight": "f m"}},
    ),
    "Llama, heads with their groups, hidden units and vocabulary": (
        llama, lambda: torch.randint(0, 32, (2, 5)), HEADS | {"g": "tensor", "v": "tensor"}, {"names": LLAMA},
    ),
    "Llama, heads whose groups are whole": (
        llama, lambda: torch.randint(0, 32, (2, 5)), HEADS | {"g": None}, {"names": LLAMA},
    ),
    "Llama, a sequence between its modules": (
        llama, lambda: torch.randint(0, 32, (2, 6)), HEADS | {"g": "tensor", "v": "tensor"},
        {"names": LLAMA, "axes": "b x", "between": {"x": "tensor"}},
    ),
}  # fmt: skip


def output(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "torch's layer" in name else pytest.mark.slow) for name in CASES]
)
def test_a_foreign_model_is_that_on_one_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, inputs, split, options = CASES[name]
    model, given = make().double(), inputs()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    expected = copy.deepcopy(model)
    result = output(expected(given))
    result.square().mean().backward()
    plan = plan_sharding(model, MESH, split, given, **options)  # the simulation replaces `contiguous` by its own
    monkeypatch.setattr(sys.modules["circuits.sharding.shard"], "plan_sharding", lambda *args, **kwargs: plan)
    with LocalTensorMode(RANKS):
        shard(model, mesh(), split, given, **options)
        found = output(model(given))
        with ExplicitRedistributionContext():
            found.square().mean().backward()
        torch.testing.assert_close(whole(found), result)
        for (path, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(whole(parameter.grad), other.grad, msg=lambda text, path=path: f"{path}: {text}")


def test_a_group_that_ranks_have_in_parts_is_as_wide_as_they_say() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inward, self.outward = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = self.inward(x).reshape(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value)
            return self.outward(mixed.transpose(1, 2).reshape(2, 5, 16))

    plan = plan_sharding(Fused(), MESH, {"h": "tensor"}, sequences().float(), names={"inward.weight": "(3 h k) m"})
    found = {each.name: repr(dict(each.dims)) for each in plan.parameters}
    assert found["inward.weight"] == found["inward.bias"] == "{'tensor': Inside(0, blocks=3)}"
    assert found["outward.weight"] == "{'tensor': 1}"


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inward(x).view(2, 5, 4, 4).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.1)


WRONG: dict[str, tuple[Any, dict[str, str], dict[str, str], tuple[Tensor, ...], str]] = {
    "heads beside the batch in one axis": (
        torch_layer(), {"h": "tensor"}, FUSED, (sequences().float(),),
        "h over tensor: view in self_attn .*inside a group, axis 1 of 5 8 4.*split another axis",
    ),
    "heads after an axis of unknown size": (
        torch_layer(), {"h": "tensor"}, {"in_proj_weight": "(q h k) m"}, (sequences().float(),),
        r"h is inside \(q h k\) of self_attn.in_proj_weight .*after a number",
    ),
    "heads that the ranks do not divide": (
        nn.Sequential(nn.Linear(16, 18), nn.Unflatten(-1, (3, 6))), {"h": "tensor"}, {"0.weight": "(h k) m"},
        (torch.zeros(2, 16),), "h over tensor: unflatten .*2 ranks do not divide it",
    ),
    "attention that drops weights": (
        Dropped(), {"h": "tensor"}, {"inward.weight": "(h k) m"}, (sequences().float(),),
        "h over tensor: scaled_dot_product_attention .*draws random numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_foreign_model_cannot_have_is_refused(name: str) -> None:
    model, split, names, given, message = WRONG[name]
    with pytest.raises(CircuitError, match=f"(?s){message}"):
        plan_sharding(model, MESH, split, *given, names=names)


@pytest.mark.slow
def test_the_batch_of_torchs_layer_may_be_inside_a_group() -> None:
    plan = plan_sharding(torch_layer(), {"data": 2}, {"b": "data"}, sequences().float(), axes="b x m")
    assert plan.data == ("data",)
    assert not plan.moves
