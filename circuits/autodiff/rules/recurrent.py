"""Definitions of recurrent cells and layers, which replace torch's fused ones.

Torch's cells write in place, and the reverse pass of its layer cannot run on tensors without data.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits.autodiff.rules.registry import defines


@defines("lstm_cell")
def lstm_cell(x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Any:
    """Return the hidden state and the cell state after one step of a long short-term memory (LSTM)."""
    state, cell = hx
    input_gate, forget_gate, new, output_gate = (F.linear(x, w_ih, b_ih) + F.linear(state, w_hh, b_hh)).chunk(4, 1)
    cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * new.tanh()
    return output_gate.sigmoid() * cell.tanh(), cell


@defines("mkldnn_rnn_layer")
def lstm_layer(
    x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any, hx: Tensor, cx: Tensor, reverse: bool,
    batch_sizes: Any, mode: int, hidden_size: int, num_layers: int, has_biases: bool, *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the outputs of an LSTM at each step, its last two states, and nothing for its own reverse pass.

    Torch's LSTMs of float32 and bfloat16 on the CPU are such layers. One without biases has
    other tensors in their place.
    """
    b_ih, b_hh = (b_ih, b_hh) if has_biases else (None, None)
    state, cell = hx[0], cx[0]
    outputs = []
    steps = F.linear(x, w_ih, b_ih).unbind(0)
    for gates in reversed(steps) if reverse else steps:
        input_gate, forget_gate, new, output_gate = (gates + F.linear(state, w_hh, b_hh)).chunk(4, 1)
        cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * new.tanh()
        state = output_gate.sigmoid() * cell.tanh()
        outputs.append(state)
    found = torch.stack(outputs[::-1] if reverse else outputs)
    return found, state.unsqueeze(0), cell.unsqueeze(0), x.new_empty(0, dtype=torch.uint8)


@defines("gru_cell")
def gru_cell(x: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """Return the hidden state after one step of a gated recurrent unit (GRU)."""
    (reset, keep, new), (reset_, keep_, new_) = [
        found.chunk(3, 1) for found in (F.linear(x, w_ih, b_ih), F.linear(hx, w_hh, b_hh))
    ]
    new = (new + (reset + reset_).sigmoid() * new_).tanh()
    return (hx - new) * (keep + keep_).sigmoid() + new
