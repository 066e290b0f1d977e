"""The drawing of every model of the zoo, at two depths, with the options that are in its file."""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from circuits import Diagram, Drawing, draw
from tests.zoo import ZOO, diagram_of_zoo

GOLDEN = Path(__file__).parents[1] / "golden" / "drawings"

SMALL = {
    "language_model": ("depth=2",),
    "sequence_to_sequence": ("vocabulary=100", "encoder_depth=2", "decoder_depth=2"),
    "transformer": ("encoder_depth=2", "decoder_depth=2"),
    "vision_transformer": ("depth=2",),
    "unet": ("channels=4",),
}
"""Arguments of models that are smaller here: equal layers are drawn once, in brackets."""


def options_of(name: str) -> Mapping[str, Any]:
    """The options of `draw` in a model's file."""
    place, _, target = ZOO[name][0].partition(":")
    return getattr(importlib.import_module(place), "FIGURES", {}).get(target, {})


@lru_cache(1)
def diagram_of(name: str) -> Diagram:
    """Return the diagram of a model, which is drawn at one depth after the other."""
    return diagram_of_zoo(name, SMALL.get(name, ()))


@pytest.mark.every(26)
@pytest.mark.parametrize("depth", [2, None], ids=["depth_2", "readable"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "resnet" else name for name in ZOO]
)
def test_a_model_is_drawn_as_its_golden_file(
    name: str, depth: int | None, golden_drawing: Callable[[str, Drawing], None]
) -> None:
    drawing = draw(diagram_of(name), **{**options_of(name), "depth": depth})
    golden_drawing(f"zoo_{name}_{'readable' if depth is None else f'depth_{depth}'}", drawing)
