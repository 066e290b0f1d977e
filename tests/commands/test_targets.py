"""What a TARGET names: modules, files, attributes, and what makes a model."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from circuits.commands.reports import UsageError
from circuits.commands.targets import find_target, makes_model
from models.attention import MultiHeadAttention, attention
from models.mlp import MLP
from models.unet import UNet

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Undo what an imported file leaves in the process."""
    path, modules = [*sys.path], {*sys.modules}
    yield
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        if "torch" not in name:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models.attention:MultiHeadAttention", MultiHeadAttention),
        ("models.attention.MultiHeadAttention", MultiHeadAttention),
        ("models:MultiHeadAttention", MultiHeadAttention),
        ("circuits.models.attention:attention", attention),
        ("torch.nn.Transformer", nn.Transformer),
        ("torch.nn:functional.relu", nn.functional.relu),
        ("torch.softmax", torch.softmax),
    ],
)
def test_a_name_in_a_module(text: str, found: object) -> None:
    target = find_target(text)
    assert target.found is found
    assert target.attributes == ()


def test_a_file_of_a_package_is_imported_under_its_name() -> None:
    """`models/attention.py` has relative imports."""
    assert find_target(f"{ROOT / 'models' / 'attention.py'}:attention").found is attention


def test_a_file_by_itself(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("size = 3")
    (tmp_path / "mine.py").write_text("import beside\ndef twice(x): return 2 * x\nsize = beside.size")
    target = find_target(f"{tmp_path / 'mine.py'}:twice")
    assert target.found(4) == 8
    assert find_target(f"{tmp_path / 'mine.py'}:twice").found is target.found  # imported once


def test_a_file_called_like_a_module_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("def twice(x): return 2 * x")
    assert find_target(f"{tmp_path / 'random.py'}:twice").found(4) == 8
    assert sys.modules["random"] is random


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for folder, number in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def number(): return {number}")
    found = [find_target(f"{tmp_path / folder / 'mine.py'}:number").found() for folder in ("one", "two")]
    assert found == [1, 2]


def test_a_file_that_fails_leaves_no_module(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1\ny = z\n")
    with pytest.raises(UsageError, match=r"NameError: name 'z' is not defined \(.*broken.py:2\)"):
        find_target(f"{tmp_path / 'broken.py'}:x")
    assert "broken" not in sys.modules


def test_attributes_of_a_class_are_those_of_the_model() -> None:
    assert find_target("models.mlp:MLP.probabilities") == ("models.mlp:MLP.probabilities", MLP, ("probabilities",))
    assert find_target("torch.nn.Transformer.encoder.layers.0")[1:] == (nn.Transformer, ("encoder", "layers", "0"))


def test_a_class_method_makes_the_model() -> None:
    target = find_target("models.unet:UNet.as_drawn.middle")
    assert target.found == UNet.as_drawn
    assert makes_model(target.found)
    assert target.attributes == ("middle",)


def annotated() -> nn.Linear:
    return nn.Linear(1, 1)


def unannotated():
    return nn.Linear(1, 1)


def badly_annotated() -> "NoSuchClass":  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
    return nn.Linear(1, 1)


def test_what_makes_a_model() -> None:
    assert all(map(makes_model, (nn.Linear, MLP, UNet.as_drawn, annotated)))
    others = (unannotated, badly_annotated, attention, nn.Linear(1, 1), MLP.probabilities, torch.softmax, 3)
    assert not any(map(makes_model, others))
