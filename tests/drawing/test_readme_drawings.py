"""The drawings in README.md are those of its code and of the models that it names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits import Drawing, backward, count, draw
from models.attention import MultiHeadAttention
from scripts import peers

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def attention() -> Any:
    """Return the circuit of README's first block."""
    block = README.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(block.partition("draw(attention")[0], names)
    return names["attention"]


@pytest.mark.smoke
def test_the_attention_with_which_it_opens(golden_drawing: Callable[[str, Drawing], None]) -> None:
    golden_drawing("readme_attention", draw(attention(), order="y x k"))


@pytest.mark.slow
def test_the_gradient(golden_drawing: Callable[[str, Drawing], None]) -> None:
    golden_drawing("readme_gradient", draw(backward(attention()), order="y x k"))


@pytest.mark.slow
def test_a_cost_beside_the_boxes(golden_drawing: Callable[[str, Drawing], None]) -> None:
    layer = MultiHeadAttention(m=128, k=16, h=4)
    flops = count(layer).at(y=1, x=4096).column("flops")
    golden_drawing("readme_cost", draw(layer, order="y x m k h", notes=flops))


@pytest.mark.slow
def test_a_model_of_another_library(golden_drawing: Callable[[str, Drawing], None]) -> None:
    model = peers.timm().create_model("vit_tiny_patch16_224").eval()
    golden_drawing("readme_timm_vit", draw(model, torch.rand(2, 3, 224, 224)))


def test_every_picture_is_a_golden_drawing() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 5
    assert all((ROOT / picture).exists() and picture.startswith("tests/golden/drawings/") for picture in pictures)
