"""The gated feed-forward network of a transformer's layer, in place of `models.layers.FeedForward`.

Source: Shazeer 2020, GLU Variants Improve Transformer, as in Llama (Touvron et al. 2023).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import circuit

from .parts.sizes import refuse_no_probability, refuse_sizes_below_one
from .weights.files import savable


@savable
class GatedFeedForward(nn.Module):
    """A feed-forward network with f gated hidden units, at every leading index; with nn.SiLU it is SwiGLU.

    The units are the linear map `L3` of the input, the gates the activation of another, `L1`; `L2` maps their product
    back to m. Weights and biases are initialized as in nn.Linear: uniform within ±(number of inputs of the map)^-½.

    Parameters: 3mf, and m + 2f more with a bias.

    Args:
        m: The size of the input and output axis (`d_model`, `embed_dim`, `hidden_size`).
        f: The number of hidden units (`dim_feedforward`, `intermediate_size`).
        activation: Called without arguments, returns the activation of the gates, as the class nn.SiLU does.
        bias: Whether the three linear maps have a bias.
        dropout: In training, the probability that a hidden unit is set to zero.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If a size is below 1, or `dropout` is not from 0 to 1.

    >>> GatedFeedForward(m=128, f=344)(torch.rand(20, 128)).shape
    torch.Size([20, 128])
    """

    m: int
    f: int
    dropout: float

    def __init__(
        self,
        m: int,
        f: int,
        activation: Callable[[], nn.Module] = nn.SiLU,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("GatedFeedForward", m=m, f=f)
        refuse_no_probability("GatedFeedForward", dropout=dropout)
        self.m, self.f, self.dropout = m, f, dropout
        self.L1 = nn.Linear(m, f, bias, device, dtype)
        self.activation: nn.Module = activation().to(device=device, dtype=dtype)
        self.L2 = nn.Linear(f, m, bias, device, dtype)
        self.L3 = nn.Linear(m, f, bias, device, dtype)

    @circuit("... m -> ... m", fixed="m")
    def forward(self, input: Tensor) -> Tensor:
        """Return the last linear map of the gated units for each vector along m."""
        units = self.activation(self.L1(input)) * self.L3(input)
        if self.dropout and self.training:
            units = F.dropout(units, self.dropout)
        return self.L2(units)
