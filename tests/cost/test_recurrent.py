"""The cost of recurrent layers, as formulas in the number of steps: hand formulas, real runs, and what is refused."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

from circuits import CircuitError, count, trace
from circuits.cost import recurrent
from tests.cost.claims import symbol
from tests.cost.counted import flops
from tests.cost.test_peak import measured

LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "RNN": lambda: nn.RNN(8, 5),
    "RNN, relu": lambda: nn.RNN(8, 5, nonlinearity="relu", bias=False),
    "RNN, batch first": lambda: nn.RNN(8, 5, batch_first=True),
    "GRU": lambda: nn.GRU(8, 5),
    "GRU of three layers, both directions": lambda: nn.GRU(8, 5, 3, bidirectional=True),
    "GRU without biases": lambda: nn.GRU(8, 5, 2, bias=False),
    "LSTM": lambda: nn.LSTM(8, 5),
    "LSTM, float64": lambda: nn.LSTM(8, 5, 2, bidirectional=True).double(),
    "LSTM, projected": lambda: nn.LSTM(8, 5, 2, proj_size=3, bidirectional=True),
    "LSTM, projected, without biases": lambda: nn.LSTM(8, 5, bias=False, proj_size=3, batch_first=True),
}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

each = pytest.mark.parametrize("name", LAYERS)
quick = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("GRU", "LSTM, projected") else pytest.mark.slow) for name in LAYERS],
)


def products_of_a_step(layer: nn.RNNBase) -> int:
    """The multiply-adds for one vector at one step: each layer and direction, its input and state, its projection."""
    gates, width, directions = GATES[type(layer).__name__], layer.hidden_size, 1 + layer.bidirectional
    out = layer.proj_size or width
    inputs = [layer.input_size] + [directions * out] * (layer.num_layers - 1)
    return sum([directions * (gates * width * (x + out) + layer.proj_size * width) for x in inputs])


@quick
def test_multiply_adds_are_linear_in_the_number_of_steps(name: str) -> None:
    layer = LAYERS[name]()
    found = count(layer, axes="t b 8")
    assert found.total.multiply_adds == products_of_a_step(layer) * symbol("t") * symbol("b")
    assert found.total.uncounted == ()
    assert found.notes == ()
    assert found.total.parameters == sum([weight.numel() for weight in layer.parameters()])


@pytest.mark.slow
@each
def test_flops_at_random_sizes_are_what_torch_counts(name: str) -> None:
    rng, layer = random.Random(name), LAYERS[name]()
    found = count(layer, axes="t b 8")
    for _ in range(20):
        sizes = {"t": rng.randint(1, 30), "b": rng.randint(1, 30)}
        x = torch.randn(sizes["t"], sizes["b"], 8, dtype=next(layer.parameters()).dtype)
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
            counted, _ = flops(lambda x=x: layer(x))
        assert found.at(**sizes).total.flops == counted, sizes


@pytest.mark.every(1, 2)
@pytest.mark.slow
@each
@pytest.mark.parametrize("sizes", [(20, 8), (2, 50)])
def test_all_quantities_are_those_at_given_sizes(name: str, sizes: tuple[int, int]) -> None:
    """At given sizes no length is free, and an LSTM of float64 or with projections is one more operation of torch's."""
    layer = LAYERS[name]()
    x = torch.randn(*sizes, 8, dtype=next(layer.parameters()).dtype)
    found, given = count(layer, axes="t b 8").at(t=sizes[0], b=sizes[1]).total, count(trace(layer, x)).total
    for quantity in ("multiply_adds", "elementwise", "read", "written", "activations", "peak"):
        assert getattr(found, quantity) == getattr(given, quantity), quantity


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "LSTM, projected"])
def test_peak_is_that_of_a_run(name: str) -> None:
    """Of the others: a projected LSTM of two directions takes an eighth more than is counted."""
    layer = LAYERS[name]()
    x = torch.randn(40, 30, 8, dtype=next(layer.parameters()).dtype)
    with torch.no_grad():
        found = measured(lambda: layer(x), layer, (x,))
    names = ("b", "t") if layer.batch_first else ("t", "b")
    assert count(layer, axes=f"{' '.join(names)} 8").at(**dict(zip(names, x.shape[:2], strict=True))).total.peak == (
        pytest.approx(found, rel=0.1)
    )


def test_elements_of_a_cell() -> None:
    """A GRU adds, squashes, multiplies and mixes ten times for each number of its state."""
    assert count(nn.GRU(8, 5), axes="t b 8").total.elementwise == 10 * 5 * symbol("t") * symbol("b")


class Encoder(nn.Module):
    """A layer before a recurrent one, and one behind, over all steps of two axes."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.into, self.layer, self.out = nn.Linear(6, 8), layer, nn.Linear(layer.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.into(x).flatten(0, 1).unsqueeze(1))[0])


@pytest.mark.parametrize("layer", [nn.GRU(8, 5), pytest.param(nn.LSTM(8, 5), marks=pytest.mark.slow)])
def test_the_number_of_steps_may_be_a_product(layer: nn.RNNBase) -> None:
    steps = symbol("h") * symbol("w")
    expected = (6 * 8 + products_of_a_step(layer) + 5 * 2) * steps
    assert count(Encoder(layer), axes="h w 6").total.multiply_adds == expected


@pytest.mark.every(1, 3)
@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", [nn.GRU(3, 4), *[pytest.param(kind, marks=pytest.mark.slow) for kind in (nn.RNN(3, 4), nn.LSTM(3, 4))]]
)
def test_a_reverse_pass_needs_a_number_of_steps(layer: nn.RNNBase) -> None:
    """Its diagram has the boxes of each step."""
    with pytest.raises(CircuitError, match=r"needs the size of t as a number, .*: give it a size, sizes={'t': 48}"):
        count(layer, axes="t b 3", backward=True)
    found = count(layer, axes="t b 3", backward=True, sizes={"t": 3})
    forward, reverse = [row for row in found.rows if len(row.place) == 1]
    assert forward.multiply_adds == 3 * products_of_a_step(layer) * symbol("b")
    first = GATES[type(layer).__name__] * 4
    assert sympy.expand(reverse.multiply_adds - 2 * forward.multiply_adds) in (0, -first * 4 * symbol("b"))


def test_a_packed_sequence_is_named_as_not_counted() -> None:
    """How many of its rows a step has is data."""
    layer = nn.GRU(8, 5)
    weights: Any = layer._flat_weights

    def packed(x: Tensor, hidden: Tensor) -> Tensor:
        return torch.gru(x, torch.tensor([2, 2, 1]), hidden, weights, True, 1, 0.0, False, False)[0]

    found = count(trace(packed, torch.randn(5, 8), torch.zeros(1, 2, 5))).total.uncounted
    assert found == (("gru 5 8, 3, 1 2 5, 15 8, 15 5, 15, 15", 1),)


@pytest.mark.parametrize("planted", ["one step", "no state"])
def test_a_planted_error_is_seen(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if planted == "one step":
        before = recurrent.times
        monkeypatch.setattr(recurrent, "times", lambda meter, number: before(meter, 1))
    else:
        monkeypatch.setitem(recurrent._CELLS, torch.gru, lambda x, state, weights, has_bias: state)
    with pytest.raises(AssertionError):
        test_multiply_adds_are_linear_in_the_number_of_steps("GRU")
