"""Names of models, modules, axes and arguments are text in every kind of file, whatever characters they have."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, Drawing, draw, trace
from tests.drawing.seen import texts

NAMES = [
    "<script>alert(1)</script>",
    "</svg><script>",
    '"><img src=x onerror=alert(1)>',
    "a & b &amp; c",
    "]]>",
    "\\input{/etc/passwd}",
    "\\end{tikzpicture}",
    "$x_1^2$ #1 %comment ~ {",
    "名前 é ∂λ",
    "a\x01b\x1fc",
    "line\nbreak",
    "'; DROP TABLE",
    "\u202eevil",
    "",
]


def named(name: str) -> Diagram:
    """Return the diagram of a model with a name, of modules and an argument with it."""

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() + 1

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            key = name.replace(".", "") or "inner"
            self.add_module(key, type(name or "Empty", (Inner,), {})())
            self.inner = self.get_submodule(key)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.inner(x) @ y.softmax(0)

    Model.__name__ = Model.__qualname__ = name
    return trace(Model(), torch.ones(3, 4), torch.ones(4, 5))


def drawings(name: str) -> list[Drawing]:
    diagram = named(name)
    axes = [draw(diagram, depth=depth) for depth in (0, 1, 2)]
    return [*axes, *[draw(diagram, depth=depth, wires="tensors") for depth in (0, 1)]]


@pytest.mark.every(3)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_an_svg(name: str) -> None:
    for drawing in drawings(name):
        found = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawing.svg).iter()}
        assert found <= {"svg", "title", "desc", "style", "g", "rect", "path", "circle", "text", "tspan", "defs"}
        assert not re.search(r"<(script|img)", drawing.svg)
        assert drawing.svg.count("data-kind=") == len(drawing.picture.marks)


@pytest.mark.every(4)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_tex(name: str) -> None:
    """No command, comment or group of a name is one of the document; its first line is a comment with the title."""
    plain = drawings("Plain")
    for drawing, other in zip(drawings(name), plain, strict=True):
        comment, _, body = drawing.tikz.partition("\\RequirePackage")
        assert re.fullmatch(r"(%[^\n]*\n)?", comment)
        for command in (r"\input", r"\end{tikzpicture}", r"\begin{document}", r"\documentclass"):
            assert body.count(command) == other.tikz.count(command)
        bare = re.sub(r"\\.", "", body)
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"[^\\]%comment", body)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown(name: str) -> None:
    """Characters that are no text are left out or drawn as others; all else is there."""
    shown = " ".join(texts(draw(named(name), depth=0)))
    for word in re.findall(r"[a-zA-Zé∂λ名前]{3,}", name):
        assert word in shown


@pytest.mark.parametrize("name", NAMES)
def test_a_name_leaves_the_terminal_alone(name: str) -> None:
    for drawing in drawings(name):
        for text in (drawing.text(width=80), drawing.text(width=80, letters="ascii")):
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text)
