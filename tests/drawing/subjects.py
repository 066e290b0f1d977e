"""What is drawn in the tests: the models of the zoo, models of other libraries, and random programs, as diagrams."""

import random
from functools import cache

import torch
from torch import nn

from circuits import CircuitError, Diagram, trace
from tests.diagram.programs import KINDS, Program
from tests.models.other_peoples_models import TIMM, TORCH_NN, TRANSFORMERS
from tests.models.survey import Entry
from tests.models.test_zoo import MODELS

FOREIGN: dict[str, Entry] = {
    **{name: TORCH_NN[name] for name in ("Transformer", "TransformerEncoder", "TransformerEncoderLayer")},
    **{name: TORCH_NN[name] for name in ("TransformerDecoderLayer", "MultiheadAttention", "LSTM", "GRU", "RNNCell")},
    **{name: TORCH_NN[name] for name in ("GroupNorm", "Bilinear", "Conv3d", "AdaptiveAvgPool2d")},
    **{name: TIMM[name] for name in ("vit_tiny_patch16_224", "convnext_atto", "resnet18", "mobilenetv3_small_050")},
    **{name: TIMM[name] for name in ("efficientvit_b0", "swin_tiny_patch4_window7_224")},
    **{
        name: TRANSFORMERS[name]
        for name in ("GPT2LMHeadModel", "LlamaForCausalLM", "BertForMaskedLM", "MambaForCausalLM")
    },
    **{name: TRANSFORMERS[name] for name in ("T5ForConditionalGeneration", "ViTForImageClassification")},
}
"""Models of torch, timm and transformers, with random weights."""

QUICK = ("TransformerEncoderLayer", "MultiheadAttention", "LSTM", "RNNCell", "GroupNorm", "Bilinear", "Conv3d")
"""Those that are traced in less than a second."""


@cache
def zoo(name: str) -> Diagram:
    """Return the diagram of a model of the zoo, its axes free."""
    torch.manual_seed(0)
    return trace(MODELS[name].make())


@cache
def foreign(name: str) -> Diagram:
    """Return the diagram of a model of another library, for two examples."""
    torch.manual_seed(0)
    entry = FOREIGN[name]
    model: nn.Module = entry.make().eval()
    args = [each.make(2) for each in entry.inputs if not each.name]
    named = {each.name: each.make(2) for each in entry.inputs if each.name}
    return trace(model, *args, **named, **entry.options)


def program(case: int) -> Diagram | None:
    """Return the diagram of a random program, or None if it needs numbers that a trace does not have.

    Args:
        case: The seed.
    """
    chosen = random.Random(case)
    steps = list(KINDS[chosen.choice(["pure", "pure", "changes", "copies", "all"])])
    plan = [(chosen.choice(steps), chosen.randrange(9), chosen.randrange(9)) for _ in range(chosen.randint(1, 8))]
    given = (torch.randn(3, 4), torch.randn(3, 4), {"y": torch.zeros(3, 4), "list": []})
    try:
        return trace(Program(plan, 4, whole=case % 2 == 0), *given)
    except (CircuitError, RuntimeError, IndexError):
        return None


PROGRAMS = range(400)
"""Random programs; about 300 of them can be traced."""
