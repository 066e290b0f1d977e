"""Recurrent layers of any number of steps: one step is run, and counts as often as there are steps.

Torch runs `gru`, `rnn_tanh`, `rnn_relu` and `lstm` step by step, so it needs the number of steps. The forms here have
the operations of that run, in its order: the product of all steps' inputs with the weights, then the cell at each step,
then the outputs of the steps in one tensor. A float32 or bfloat16 LSTM without projections is one operation on the CPU
(`mkldnn_rnn_layer`), and packed sequences have a number of rows for each step: they have no form here.

Source: aten/src/ATen/native/RNN.cpp of torch 2.13.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.cost.meter import Meter, Tally
from circuits.cost.sizes import Sum, simplified

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Sequence[Tensor], bool], State]
"""Returns the state after one step, of which the first tensor is the output.

It takes the product of the input with its weight, the state, the other weights, and whether these include a bias.
"""


def recurrent_form(function: Any, args: Any, kwargs: Any, meter: Meter) -> Any:
    """Return the form of a call of a recurrent layer, to run under `meter`; None if there is none."""
    cell = _CELLS.get(function)
    is_packed = len(args) < 9 or kwargs or isinstance(args[3], (list, tuple))
    if cell is None or is_packed:
        return None
    x, state, weights = args[:3]
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    if function is torch.lstm and _is_one_operation([x, *states, *weights], states):
        return None
    return lambda: _layers(meter, cell, x, states, weights, *args[3:9])


def _is_one_operation(tensors: Sequence[Tensor], states: State) -> bool:
    """Return whether torch runs an LSTM on the CPU as one operation for each layer and direction."""
    return (
        torch._C._get_mkldnn_enabled()
        and states[0].shape[-1] == states[1].shape[-1]
        and all(each.device.type == "cpu" and each.dtype in (torch.float32, torch.bfloat16) for each in tensors)
    )


def _layers(
    meter: Meter, cell: Cell, x: Tensor, states: State, weights: Sequence[Tensor], has_bias: bool, layers: int,
    dropout: float, is_training: bool, is_bidirectional: bool, batch_first: bool,
) -> Any:  # fmt: skip
    """Run all layers; return the outputs of the last, and the last state of each layer and direction."""
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if is_bidirectional else 1
    each = len(weights) // (layers * directions)
    last: list[State] = []
    for layer in range(layers):
        own = weights[layer * directions * each : (layer + 1) * directions * each]
        before = [tuple([part[layer * directions + place] for part in states]) for place in range(directions)]
        x, after = _both(meter, cell, x, before, [own[:each], own[each:]], has_bias)
        last += after
        if is_training and dropout and layer < layers - 1:
            x = F.dropout(x, dropout)
    return (x.transpose(0, 1) if batch_first else x, *[torch.stack(part) for part in zip(*last, strict=True)])


def _both(
    meter: Meter, cell: Cell, x: Tensor, states: Sequence[State], weights: Sequence[Sequence[Tensor]], has_bias: bool
) -> tuple[Tensor, list[State]]:
    """Run one layer, in both directions if there are two states; return its outputs and last states.

    The outputs of each step live until both directions end, and the products with the inputs until their own ends or
    until the outputs are joined, as torch has it: this decides the peak.
    """
    outputs: list[Tensor] = []
    last: list[State] = []
    kept: list[Tensor] = []
    by_input: Any = None
    for state, own in zip(states, weights, strict=False):
        by_input = None  # This frees the product of the direction before.
        output, after, before, by_input = _layer(meter, cell, x, state, own, has_bias)
        outputs.append(output)
        last.append(after)
        kept.append(before)
    found = torch.cat(outputs, -1) if len(outputs) == 2 else outputs[0]
    del kept, by_input
    return found, last


def _layer(
    meter: Meter, cell: Cell, x: Tensor, state: State, weights: Sequence[Tensor], has_bias: bool
) -> tuple[Tensor, State, Tensor, Tensor]:
    """Run one layer in one direction; return the outputs of all steps, the last state, and what torch keeps longer.

    These are the outputs of the steps before the last, a tensor without contents here, and the product of the inputs
    with their weight, which the steps read in the opposite order if they run backwards in time.
    """
    by_input = F.linear(x, weights[0], weights[2] if has_bias else None)
    steps, width = x.shape[0], state[0].shape[-1]
    before = x.new_empty((steps - 1, x.shape[1], width))
    with times(meter, steps):
        state = cell(by_input[0], state, weights, has_bias)
    return torch.cat([before, state[0].unsqueeze(0)]), state, before, by_input


@contextmanager
def times(meter: Meter, number: Any) -> Iterator[None]:
    """Count what runs inside the `with` a number of times, which may be symbolic."""
    outer, meter.tally = meter.tally, Tally()
    try:
        yield
        for name, found in vars(meter.tally).items():
            _add(getattr(outer, name), found, meter.size(number))
    finally:
        meter.tally = outer


def _add(total: Any, found: Any, number: Any) -> None:
    """Add sums a number of times to others: one, one for each key, or counts of names."""
    if isinstance(found, Sum):
        total.add(simplified(found.size * number))
    elif isinstance(found, Counter):
        total.update(found)
    else:
        for key, each in found.items():
            _add(total.setdefault(key, type(each)()), each, number)


# Cells ----------------------------------------------------------------------------------------------------------------


def _hidden(state: Tensor, weights: Sequence[Tensor], has_bias: bool) -> Tensor:
    """Return the product of the hidden state with its weight."""
    return F.linear(state, weights[1], weights[3] if has_bias else None)


def _tanh(x: Tensor, state: State, weights: Sequence[Tensor], has_bias: bool) -> State:
    return ((_hidden(state[0], weights, has_bias) + x).tanh(),)


def _relu(x: Tensor, state: State, weights: Sequence[Tensor], has_bias: bool) -> State:
    return ((_hidden(state[0], weights, has_bias) + x).relu(),)


def _gru(x: Tensor, state: State, weights: Sequence[Tensor], has_bias: bool) -> State:
    (reset, keep, new), (reset_, keep_, new_) = (
        x.chunk(3, -1),
        _hidden(state[0], weights, has_bias).chunk(3, -1),
    )
    reset, keep = (reset_ + reset).sigmoid(), (keep_ + keep).sigmoid()
    new = (new + new_ * reset).tanh()
    return ((state[0] - new) * keep + new,)


def _lstm(x: Tensor, state: State, weights: Sequence[Tensor], has_bias: bool) -> State:
    hidden, cell = state
    parts = (_hidden(hidden, weights, has_bias) + x).chunk(4, -1)
    enter, forget, output = [parts[place].sigmoid() for place in (0, 1, 3)]
    cell = forget * cell + enter * parts[2].tanh()
    hidden = output * cell.tanh()
    is_projected = len(weights) in (3, 5)
    return F.linear(hidden, weights[-1]) if is_projected else hidden, cell


_CELLS: dict[Any, Cell] = {torch.gru: _gru, torch.rnn_tanh: _tanh, torch.rnn_relu: _relu, torch.lstm: _lstm}

__all__ = ["recurrent_form", "times"]
