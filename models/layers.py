"""Blocks that several figures use: norm with activation, residual connection, double convolution, feed-forward.

`Linear` and the two functions that change the memory layout, `channels_last` and `channels_first`, are in `parts` and
can be imported from here.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 24, 26 and 27; for the initialization of convolutions, He
et al. 2015, Delving Deep into Rectifiers.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import ShapeError, circuit

from .parts.linear import Linear
from .parts.memory_layout import channels_first, channels_last
from .parts.sizes import refuse_no_probability, refuse_sizes_below_one
from .weights.files import savable

__all__ = [
    "DoubleConvolution",
    "FeedForward",
    "Linear",
    "NormActivate",
    "ResidualConnection",
    "channels_first",
    "channels_last",
    "he_normal",
]


@savable
class NormActivate(nn.Module):
    """A norm over n channels, then an activation: the pink box of Figure 26.

    nn.ReLU works in place after nn.BatchNorm2d and nn.GroupNorm: their output is a new tensor that their gradient does
    not need.

    Parameters: those of the norm and the activation; 2n with nn.BatchNorm2d or nn.GroupNorm, and nn.ReLU.

    Args:
        n: The number of channels (`num_features`).
        norm: Called with the number of channels, returns the norm, as the class nn.BatchNorm2d does.
        activation: Called without arguments, returns the activation, as the class nn.ReLU does.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If n is below 1.

    >>> NormActivate(16)(torch.rand(5, 16, 8, 8)).shape
    torch.Size([5, 16, 8, 8])
    """

    def __init__(
        self,
        n: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("NormActivate", n=n)
        self.n = n
        self.norm: nn.Module = norm(n).to(device=device, dtype=dtype)
        in_place = type(self.norm) in (nn.BatchNorm2d, nn.GroupNorm)
        self.activation: nn.Module = _activation(activation, in_place=in_place).to(device=device, dtype=dtype)

    @circuit("b n h w -> b n h w", fixed="n")
    def forward(self, image: Tensor) -> Tensor:
        """Return the normalized image after the activation."""
        return self.activation(self.norm(image))


@savable
class ResidualConnection(nn.Module):
    """The sum of a module's output and its input, or the output of a second module on the input (Figure 26).

    The two summands must have equal shapes: neither is broadcast. Parameters: those of the two modules.

    Args:
        mainline: The module on the main path.
        connection: The module on the other path; by default the identity.

    >>> ResidualConnection(nn.Linear(8, 8))(torch.rand(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, mainline: nn.Module, connection: nn.Module | None = None) -> None:
        super().__init__()
        self.main = mainline
        self.connection = connection

    def forward(self, input: Tensor) -> Tensor:
        """Return the sum of the outputs of both paths.

        Raises:
            ShapeError: If the two outputs have different shapes.
        """
        main = self.main(input)
        other = input if self.connection is None else self.connection(input)
        if main.shape != other.shape:
            name = "the input" if self.connection is None else "the connection"
            raise ShapeError(
                "ResidualConnection: the summands must have equal shapes, got"
                f" {tuple(main.shape)} from the mainline, {tuple(other.shape)} from {name}"
            )
        return main + other


@savable
class DoubleConvolution(nn.Module):
    """Two 3×3 convolutions that keep h and w, with an activation after each: the pink box of Figure 27.

    Weights are initialized normal, with variance 2/(number of inputs of one output) (He et al. 2015), biases to 0.

    Parameters: 9(c0 + c1)c1 + 2c1; with `norm` 9(c0 + c1)c1 and those of two norms.

    Args:
        c0: The number of input channels (`in_channels`).
        c1: The number of output channels, of both convolutions (`out_channels`).
        activation: Called without arguments, returns the activation, as the class nn.ReLU does.
        norm: Called with the number of channels, returns a norm that is applied before each activation; the
            convolutions then have no bias. By default there is none.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If a number of channels is below 1.

    >>> DoubleConvolution(3, 16)(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 16, 8, 8])
    """

    c0: int
    c1: int
    first: nn.Conv2d
    first_activation: nn.Module
    second: nn.Conv2d
    second_activation: nn.Module

    def __init__(
        self,
        c0: int,
        c1: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm: Callable[[int], nn.Module] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("DoubleConvolution", c0=c0, c1=c1)
        self.c0, self.c1 = c0, c1

        def convolution(inputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, c1, 3, padding=1, bias=norm is None, device=device, dtype=dtype)

        def activate() -> nn.Module:
            if norm is None:
                return _activation(activation, in_place=True).to(device=device, dtype=dtype)
            return NormActivate(c1, norm, activation, device=device, dtype=dtype)

        self.first, self.first_activation = convolution(c0), activate()
        self.second, self.second_activation = convolution(c1), activate()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize both convolutions, as `he_normal` does."""
        he_normal(self.first)
        he_normal(self.second)

    @circuit("b c0 h w -> b c1 h w", fixed="c0 c1")
    def forward(self, image: Tensor) -> Tensor:
        """Return the image after both convolutions, each followed by its activation."""
        image = self.first_activation(self.first(image))
        return self.second_activation(self.second(image))


@savable
class FeedForward(nn.Module):
    """Two linear maps with an activation between them, from m to f and back to m, at every leading index (Figure 24).

    Where gradients are disabled, nn.ReLU works in place. Weights and biases are initialized as in nn.Linear: uniform
    within ±(number of inputs of the map)^-½.

    Parameters: 2mf, and m + f more with a bias.

    Args:
        m: The size of the input and output axis (`d_model`, `embed_dim`, `hidden_size`).
        f: The number of hidden units (`dim_feedforward`, `intermediate_size`).
        activation: Called without arguments, returns the activation, as the class nn.ReLU does.
        bias: Whether both linear maps have a bias.
        dropout: In training, the probability that a hidden unit is set to zero.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If a size is below 1, or `dropout` is not from 0 to 1.

    >>> FeedForward(m=128, f=512)(torch.rand(20, 128)).shape
    torch.Size([20, 128])
    """

    m: int
    f: int
    dropout: float

    def __init__(
        self,
        m: int,
        f: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("FeedForward", m=m, f=f)
        refuse_no_probability("FeedForward", dropout=dropout)
        self.m, self.f, self.dropout = m, f, dropout
        self.L1 = nn.Linear(m, f, bias, device, dtype)
        self.activation: nn.Module = _hidden_activation(activation).to(device=device, dtype=dtype)
        self.L2 = nn.Linear(f, m, bias, device, dtype)

    @circuit("... m -> ... m", fixed="m")
    def forward(self, input: Tensor) -> Tensor:
        """Return the output of the second linear map for each vector along m."""
        units = self.activation(self.L1(input))
        if self.dropout and self.training:
            units = F.dropout(units, self.dropout)
        return self.L2(units)


class _HiddenReLU(nn.ReLU):
    """nn.ReLU, in place while gradients are disabled; with gradients, full backward hooks would not allow it."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the maximum of each number and 0."""
        return F.relu(input, inplace=not torch.is_grad_enabled())

    def _get_name(self) -> str:
        return "ReLU"


def _hidden_activation(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the activation between two linear maps, whose input is a new tensor that nothing else uses."""
    return _HiddenReLU() if make is nn.ReLU else make()


def _activation(make: Callable[[], nn.Module], *, in_place: bool) -> nn.Module:
    """Return the activation; if it is nn.ReLU and `in_place` allows it, one that overwrites its input."""
    return nn.ReLU(inplace=True) if in_place and make is nn.ReLU else make()


def he_normal(convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Re-initialize a convolution: the weight normal with variance 2/(number of inputs of one output), the bias 0.

    The stride of a transposed convolution must equal its kernel size; each output then has one input for each channel
    of its group.

    Args:
        convolution: The convolution, whose parameters are overwritten.
    """
    weight = convolution.weight
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    inputs = convolution.in_channels // convolution.groups if transposed else weight[:1].numel()
    nn.init.normal_(weight, std=(2 / inputs) ** 0.5 if inputs else 0.0)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
