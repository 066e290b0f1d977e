"""Numbers that Python read from data in a tracked run: the diagram reads them again, and refuses other numbers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuits import backward, simplify, track
from circuits.errors import CircuitError
from tests.recorded import Runs, tracked


def branch(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x - 1


READ = {
    "item": lambda x: x / x.max().item(),
    "if": branch,
    "while": lambda x: x * 2 if bool((x < 3).any()) else x,
    "int": lambda x: x.repeat(int(x[0])),
    "float": lambda x: x * float(x[1]),
    "index": lambda x: x * [1, 5, 7, 9, 11][x[0].long()],
    "tolist": lambda x: x * sum(x.tolist()),
    "equal": lambda x: x * 2 if torch.equal(x, torch.ones(2)) else x * 3,
    "contains": lambda x: x * 2 if 8.0 in x else x * 3,
}
"""Functions that read a number of their input; each computes something else for the second of these inputs."""
FIRST, SECOND = torch.tensor([1.0, 2.0]), torch.tensor([4.0, -8.0])


@pytest.mark.parametrize("name", READ)
def test_other_numbers_are_refused_and_the_same_numbers_are_not(name: str) -> None:
    first, second = (FIRST, torch.ones(2)) if name == "equal" else (FIRST, SECOND)
    second = SECOND.abs() if name == "contains" else torch.tensor([3.0, 4.0]) if name == "while" else second
    diagram = tracked(READ[name], first)
    assert torch.equal(diagram(first.clone()), READ[name](first))
    with pytest.raises(CircuitError, match=rf"the recorded run read .* by .* at {__file__}:\d+, and now it is"):
        diagram(second)
    with pytest.raises(CircuitError, match="the recorded run read"):
        diagram.function()(second)
    with pytest.raises(CircuitError, match="the recorded run read"):
        simplify(diagram)(second)


def test_numpy_is_refused_for_all_data() -> None:
    """A numpy array is not kept for comparison: what numpy computes from it is not recorded."""
    diagram = tracked(lambda x: x + torch.from_numpy(np.exp(x.numpy())), FIRST)
    with pytest.raises(CircuitError, match="read a value of type ndarray from data, by numpy"):
        diagram(FIRST)


def test_the_table_shows_what_was_read() -> None:
    diagram = tracked(READ["item"], FIRST)
    assert [row.split()[-1] for row in str(diagram).splitlines() if "read" in row] == ["2.0"]
    assert [box["note"] for box in diagram.to_dict()["boxes"] if "note" in box] == ["read 2.0"]


def test_a_parameter_that_is_read_and_then_trained() -> None:
    model = nn.PReLU(1)
    scaled = Runs(lambda x: x * model.weight.item())
    with track(scaled, to=None) as seen:
        scaled(FIRST)
    assert torch.equal(seen.diagram(SECOND), scaled(SECOND))
    nn.init.ones_(model.weight)
    with pytest.raises(CircuitError, match=r"read 0\.25 from data.*now it is 1\.0"):
        seen.diagram(FIRST)


def test_a_run_that_read_numbers_is_not_differentiated() -> None:
    with pytest.raises(CircuitError, match=r"read True from data, by bool at .*not traced or differentiated"):
        backward(tracked(branch, FIRST))
