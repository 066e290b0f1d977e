"""The FLOPs of other libraries' models are those that torch counts of their runs, forward and backward."""

from functools import cache
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuits import Cost, count, trace
from tests.cost.counted import floating, flops, reverse_flops
from tests.models.other_peoples_models import TIMM, TORCH_NN, TRANSFORMERS
from tests.models.survey import Entry

LAYERS = [
    "Linear",
    "Conv1d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "RNN",
    "GRU",
    "RNNCell",
    "GRUCell",
    "LSTMCell",
    "MultiheadAttention",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "Transformer",
    "LayerNorm",
    "BatchNorm2d",
    "CrossEntropyLoss",
    "Embedding",
]
LANGUAGE = [
    "BertForMaskedLM",
    "AlbertForMaskedLM",
    "DebertaV2Model",
    "FNetModel",
    "LongformerModel",
    "RoFormerModel",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Gemma2ForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
    "BloomForCausalLM",
    "T5ForConditionalGeneration",
    "BartForConditionalGeneration",
]
VISION = ["ViTForImageClassification", "Dinov2Model", "CLIPVisionModel", "SiglipVisionModel", "ResNetModel"]
IMAGES = ["vit_tiny_patch16_224", "starnet_s1", "mobilenetv3_small_050", "regnetx_002"]
ENTRIES: dict[str, Entry] = {
    **{name: TORCH_NN[name] for name in LAYERS},
    **{name: TRANSFORMERS[name] for name in (*LANGUAGE, *VISION)},
    **{name: TIMM[name] for name in IMAGES},
}
ONLY_FORWARD = {
    "regnetx_002": "torch counts the gradient of a grouped convolution's weight once for each group",
    "mobilenetv3_small_050": "the same",
    "starnet_s1": "the same",
}
"""Models whose reverse pass torch counts wrong, and why."""

each = pytest.mark.parametrize("name", ENTRIES)


def prepared(name: str) -> tuple[Any, Any, Any]:
    """The model, and its arguments, which require gradients."""
    torch.manual_seed(0)
    model = ENTRIES[name].make().eval()
    args, kwargs = ENTRIES[name].arguments(1, 2)
    for x in floating((args, kwargs)):
        x.requires_grad_()
    return model, args, kwargs


@cache
def cost(name: str) -> Cost:
    """The cost of both passes."""
    model, args, kwargs = prepared(name)
    return count(trace(model, *args, **kwargs), backward=True)


@pytest.mark.every(1, 3)
@pytest.mark.slow
@each
def test_flops_are_what_torch_counts(name: str) -> None:
    """Attention runs its plain form, whose reverse pass has four contractions; the fused kernel's has five."""
    model, args, kwargs = prepared(name)
    with sdpa_kernel(SDPBackend.MATH):
        counted, output = flops(lambda: model(*args, **kwargs))
        forward, reverse = [row for row in cost(name).rows if len(row.place) == 1]
        assert forward.flops == counted
        if name not in ONLY_FORWARD:
            assert reverse.flops == reverse_flops(output)
    assert forward.parameters == sum([each.numel() for each in model.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LANGUAGE[:1], *VISION, "vit_tiny_patch16_224", "TransformerEncoderLayer"])
def test_fused_attention_has_the_flops_of_its_definition(name: str) -> None:
    """The kernel that runs on a CPU, with torch's formula for it, which is registered there for other devices."""
    model, args, kwargs = prepared(name)
    counted, _ = flops(lambda: model(*args, **kwargs))
    assert count(trace(model, *args, **kwargs)).total.flops == counted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"])
def test_mixtures_of_experts(name: str) -> None:
    """Torch has no formula for products of groups: 2 of 4 experts for each of 16 tokens, 8 or 24 hidden units each."""
    torch.manual_seed(0)
    model: Any = TRANSFORMERS[name].make().eval()
    args, kwargs = TRANSFORMERS[name].arguments(1, 2)
    counted, _ = flops(lambda: model(*args, **kwargs))
    found = count(trace(model, *args, **kwargs))
    hidden = model.config.moe_intermediate_size if name.startswith("Qwen3") else model.config.intermediate_size
    assert found.total.flops - counted == 2 * (2 * 16 * 2 * 3 * 16 * hidden)
    assert {name.split()[0] for name, _ in found.total.uncounted} <= {"topk", "sort", "histc"}
