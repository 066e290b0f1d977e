"""Tables of ten models, ours and of other libraries: as goldens at three widths, and totals against other oracles."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torchinfo
from torch import nn

from circuits import Diagram, summary, trace
from circuits.diagram.columns import parameter_count
from circuits.diagram.counts import tree
from circuits.diagram.rows import flat_rows, rows
from models.attention import MultiHeadAttention
from models.language_model import LanguageModel
from models.mlp import MLP
from models.unet import UNet
from models.vision_transformer import VisionTransformer
from tests import peers

Made = tuple[nn.Module, tuple[torch.Tensor, ...]]

IMAGE = torch.zeros(1, 3, 64, 64)
TOKENS = torch.zeros(1, 8, dtype=torch.long)


def timm(name: str) -> Made:
    return peers.timm().create_model(name, pretrained=False, num_classes=7), (IMAGE,)


def gpt2() -> Made:
    package = peers.peer("transformers")
    config = package.GPT2Config(n_embd=32, n_head=4, n_layer=3, vocab_size=50, n_positions=16, use_cache=False)
    return package.GPT2LMHeadModel(config).eval(), (TOKENS,)


def bert() -> Made:
    package = peers.peer("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = package.BertModel(package.BertConfig(vocab_size=50, **sizes)).eval()
    model.embeddings.requires_grad_(False)
    return model, (TOKENS,)


def language_model(depth: int = 3) -> Made:
    return LanguageModel(vocabulary=65, m=32, k=8, h=4, f=64, depth=depth), (TOKENS,)


MODELS: dict[str, Callable[[], Made]] = {
    "mlp": lambda: (MLP(), (torch.zeros(28, 28),)),
    "attention": lambda: (MultiHeadAttention(m=128, k=16, h=4), (torch.zeros(20, 128), torch.zeros(22, 128))),
    "unet": lambda: (UNet(), (torch.zeros(1, 1, 64, 64),)),
    "vision_transformer": lambda: (
        VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=2, classes=10, in_channels=1),
        (torch.zeros(1, 1, 28, 28),),
    ),
    "language_model": language_model,
    "transformer": lambda: (
        nn.Transformer(32, 4, 2, 2, 64, batch_first=True),
        (torch.zeros(1, 5, 32), torch.zeros(1, 6, 32)),
    ),
    "resnet18": lambda: timm("resnet18"),
    "mobilenet": lambda: timm("mobilenetv3_small_050"),
    "gpt2": gpt2,
    "bert": bert,
}
TIED = {"gpt2": 50 * 32}
"""Elements of tied parameters, which torchinfo counts twice, and torch and the table once."""

SLOW = ("mobilenet", "gpt2", "bert", "resnet18", "unet", "transformer")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]


@cache
def made(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], Diagram]:
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    return model, inputs, trace(model, *inputs)


def told(diagram: Diagram) -> str:
    """The tables of a diagram at three widths, as they are and in ASCII."""
    parts = []
    for width in (80, 120, 200):
        for plain in (False, True):
            text = diagram.table(width=width, ascii=plain)
            assert max(map(len, text.splitlines())) <= width
            assert text.isascii() or not plain
            parts.append(f"--- {width} columns{', ASCII' if plain else ''} ---\n{text}\n")
    return "\n".join(parts)


@pytest.mark.every(4)
@pytest.mark.parametrize("name", NAMES)
def test_tables_at_three_widths(name: str, golden: Any) -> None:
    golden(f"tables/{name}.txt", told(made(name)[2]))


@pytest.mark.parametrize("name", NAMES)
def test_totals_agree_with_torch_and_torchinfo(name: str) -> None:
    model, inputs, diagram = made(name)
    totals, parameters = diagram.totals, [*model.parameters()]
    assert totals.parameters == sum(each.numel() for each in parameters)
    assert totals.parameter_bytes == sum(each.numel() * each.element_size() for each in parameters)
    assert totals.frozen == sum(each.numel() for each in parameters if not each.requires_grad)
    assert totals.trained == totals.parameters - totals.frozen
    assert totals.buffers == sum(each.numel() for each in model.buffers())
    assert totals.buffer_bytes == sum(each.numel() * each.element_size() for each in model.buffers())
    read = torchinfo.summary(model, input_data=inputs, verbose=0)
    assert totals.parameters == read.total_params - TIED.get(name, 0)
    assert totals.trained == read.trainable_params - TIED.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [0, 1, 2, None])
def test_rows_add_up_to_the_total(name: str, depth: int | None) -> None:
    diagram = made(name)[2]
    found = flat_rows(rows(tree(diagram.box), depth))
    assert sum(parameter_count(row) for row in found) == diagram.totals.parameters
    assert sum(sum(node.memory for node in row.nodes) for row in found) == diagram.totals.activation_bytes


@pytest.mark.slow
def test_a_model_of_96_layers_fits_a_screen() -> None:
    model, inputs = language_model(depth=96)
    lines = summary(model, *inputs).table(width=100).splitlines()
    assert len(lines) < 50
    assert any("0…95" in line and "96 × " in line for line in lines)
