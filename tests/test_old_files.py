"""Files written before the modules of `circuits` and `models` moved into folders: they load, and compute the same.

`golden/house/pickled.xz` holds pickles of modules, diagrams and data of every kind, the outputs that the modules had
then, and the texts of the data; the two other files hold one MultiHeadAttention, by `models.save` and `torch.export`.
"""

import lzma
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from circuits import Diagram

FOLDER = Path(__file__).parent / "golden" / "house"
OLD: dict[str, Any] = pickle.loads(lzma.decompress((FOLDER / "pickled.xz").read_bytes()))


@pytest.mark.parametrize("name", OLD["pickles"])
def test_an_old_pickle_loads_and_is_pickled_again(name: str) -> None:
    found = pickle.loads(OLD["pickles"][name])
    again = pickle.dumps(found)
    assert type(pickle.loads(again)).__qualname__ == type(found).__qualname__


@pytest.mark.parametrize("name", OLD["calls"])
def test_an_old_module_computes_what_it_computed(name: str) -> None:
    """When these were pickled, `forward` returned what `probabilities` returns, where there is one."""
    inputs, expected = OLD["calls"][name]
    module = pickle.loads(OLD["pickles"][name]).eval()
    torch.testing.assert_close(getattr(module, "probabilities", module)(*inputs), expected)


@pytest.mark.parametrize("name", OLD["texts"])
def test_old_data_says_what_it_said(name: str) -> None:
    """Of a diagram, whose table had other columns, each row has the axes and sizes that it had."""
    found, text = pickle.loads(OLD["pickles"][name]), OLD["texts"][name]
    if not isinstance(found, Diagram):
        assert str(found) == text
        return
    rows = found.table(depth=None, width=400).partition("\n\n")[0].splitlines()[1:]
    for row, before in zip(rows, text.splitlines(), strict=True):
        _, *columns = re.split(r"\s{2,}", before.strip())
        assert all(column in row for column in columns if " -> " in column), row


def test_an_old_diagram_runs() -> None:
    diagram = pickle.loads(OLD["pickles"]["diagram of attention"])
    model = models.MultiHeadAttention(m=4, k=2, h=2)
    model.load_state_dict({name: diagram_parameter(diagram, name) for name, _ in model.named_parameters()})
    inputs = torch.rand(3, 4), torch.rand(3, 4)
    torch.testing.assert_close(diagram(*inputs), model(*inputs))


def diagram_parameter(diagram: Diagram, name: str) -> torch.Tensor:
    """The parameter of this name that the diagram's box reads."""
    (value,) = [value for value in diagram.parameters if value.name.endswith(name)]
    module, path = diagram.state[value.number]
    return module.get_parameter(path)


def test_an_old_export_is_the_model_of_the_old_file() -> None:
    model = models.load(FOLDER / "saved.safetensors")
    exported = torch.export.load(FOLDER / "exported.pt2").module()
    inputs = torch.rand(3, 4), torch.rand(2, 4)
    torch.testing.assert_close(exported(*inputs), model(*inputs))
