"""Definitions of recurrent cells, which replace torch's fused cells, because those write in place."""

from typing import Any

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


@defines("gru_cell")
def gru_cell(x: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    """Return the hidden state after one step of a gated recurrent unit (GRU)."""
    (reset, keep, new), (reset_, keep_, new_) = [
        found.chunk(3, 1) for found in (F.linear(x, w_ih, b_ih), F.linear(hx, w_hh, b_hh))
    ]
    new = (new + (reset + reset_).sigmoid() * new_).tanh()
    return (hx - new) * (keep + keep_).sigmoid() + new
