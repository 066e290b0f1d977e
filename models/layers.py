"""The boxes that figures repeat: learned linear maps, norms that activate, residuals, double convolutions.

Here are the blocks with no figure of their own. What a tensor's memory looks like is no part of a diagram: the two
functions at the end are the identity there, and change the layout where they run.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figures 24, 26 and 27; the learned box L of section 2.4; for the
initialisation of convolutions, He et al. 2015, Delving Deep into Rectifiers.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, Signature, circuit, rearrange

from .weights.files import savable


@savable
class Linear(nn.Module):
    """A learned linear map from some named axes to others, at every index of whatever leads: `Linear("m -> h k", ...)`.

    Every name has a size, and all of them stand in the map: an axis on both sides is read, and written anew. The weight
    is nn.Linear's, (axes out, axes in), each side's axes one after another in the order written. Weight and bias begin
    as nn.Linear's do, uniform within ±(size in)^-½.

    Parameters: (size out)(size in), and (size out) more with a bias. Raises SignatureError for a text that cannot be
    read, and CircuitError unless it goes from one tensor of names to another and each name has a size.

    >>> split = Linear("m -> h k", m=128, h=4, k=16)
    >>> split(torch.rand(20, 128)).shape, split.weight.shape
    (torch.Size([20, 4, 16]), torch.Size([64, 128]))
    """

    def __init__(
        self,
        text: str,
        /,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **sizes: int,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = _sides(text)
        names = {*self.inputs, *self.outputs}
        if names != sizes.keys():
            missing, unknown = sorted(names - sizes.keys()), sorted(sizes.keys() - names)
            said = [
                f"{what} {' '.join(them)}" for what, them in (("no size for", missing), ("no axis", unknown)) if them
            ]
            raise CircuitError(f'Linear("{text}"): {" and ".join(said)}')
        self.sizes = sizes
        rows, columns = (math.prod(sizes[name] for name in side) for side in (self.outputs, self.inputs))
        self.weight = nn.Parameter(torch.empty(rows, columns, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        inside, outside = " ".join(self.inputs), " ".join(self.outputs)
        self.join = None if len(self.inputs) == 1 else f"... {inside} -> ... ({inside})"
        self.split = None if len(self.outputs) == 1 else f"... ({outside}) -> ... {outside}"
        circuit(f"... {inside} -> ... {outside}", fixed=sizes)(self)

    def reset_parameters(self) -> None:
        """Draw the weight and the bias anew."""
        bound = self.weight.shape[1] ** -0.5 if self.weight.shape[1] else 0.0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """The map at every index of the leading axes; raises ShapeError where a named axis has another size."""
        joined = input if self.join is None else rearrange(input, self.join)
        mapped = F.linear(joined, self.weight, self.bias)
        if self.split is None:
            return mapped
        return rearrange(mapped, self.split, **{name: self.sizes[name] for name in self.outputs})

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f'"{" ".join(self.inputs)} -> {" ".join(self.outputs)}", {sizes}, bias={self.bias is not None}'


def _sides(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names on each side of a linear map's text; `...` may lead on both, as it does unsaid."""
    signature = Signature.parse(text)
    sides = [[f"{axis}" for axis in tensor] for tensor in (*signature.inputs, *signature.outputs)]
    lifted = [side[:1] == ["..."] for side in sides]
    sides = [side[led:] for side, led in zip(sides, lifted, strict=True)]
    plain = all(name.isidentifier() for side in sides for name in side)
    if len(sides) != 2 or len(signature.inputs) != 1 or len(set(lifted)) > 1 or not plain:
        raise CircuitError(
            f'Linear("{text}"): a linear map goes from one tensor of named axes to another, as "m -> h k"'
        )
    if any(len({*side}) < len(side) for side in sides):
        raise CircuitError(f'Linear("{text}"): an axis stands once on a side')
    return tuple(sides[0]), tuple(sides[1])


@savable
class NormActivate(nn.Module):
    """A norm over n channels, then an activation: the pink box of Figure 26.

    `norm` makes a module for a number of channels, `activation` makes one for nothing, as their classes do. What
    nn.BatchNorm2d and nn.GroupNorm give is new and no gradient asks for it again: there nn.ReLU works in place.

    Parameters: 2n, for these two norms.

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
        self.n = n
        self.norm = norm(n).to(device=device, dtype=dtype)
        in_place = type(self.norm) in (nn.BatchNorm2d, nn.GroupNorm)
        self.activation = _activation(activation, in_place=in_place).to(device=device, dtype=dtype)

    @circuit("b n h w -> b n h w", fixed="n")
    def forward(self, image: Tensor) -> Tensor:
        """Normed, then activated."""
        return self.activation(self.norm(image))


@savable
class ResidualConnection(nn.Module):
    """What the mainline makes of a tensor, plus the tensor itself, or what the connection makes of it (Figure 26).

    The two must have equal axes: neither is stretched to fit the other. Parameters: those of the two modules.

    >>> ResidualConnection(nn.Linear(8, 8))(torch.rand(5, 8)).shape
    torch.Size([5, 8])
    """

    def __init__(self, mainline: nn.Module, connection: nn.Module | None = None) -> None:
        super().__init__()
        self.main = mainline
        self.connection = connection

    def forward(self, input: Tensor) -> Tensor:
        """The sum of both ways; raises ShapeError where they end in other axes."""
        main = self.main(input)
        other = input if self.connection is None else self.connection(input)
        if main.shape != other.shape:
            name = "the input" if self.connection is None else "the connection"
            raise ShapeError(
                f"ResidualConnection: {tuple(main.shape)} from the mainline, {tuple(other.shape)} from {name}"
            )
        return main + other


@savable
class DoubleConvolution(nn.Module):
    """Two 3 by 3 convolutions that keep h and w, an activation after each: the pink box of Figure 27.

    With a `norm`, which is made for a number of channels and stands before each activation, the convolutions have no
    bias. Weights begin normal, with variance 2 by the inputs of one output (He et al.), and biases at 0.

    Parameters: 9(c0 + c1)c1 + 2c1; 9(c0 + c1)c1 and those of two norms with `norm`.

    >>> DoubleConvolution(3, 16)(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 16, 8, 8])
    """

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
        """Draw the convolutions anew."""
        he_normal(self.first)
        he_normal(self.second)

    @circuit("b c0 h w -> b c1 h w", fixed="c0 c1")
    def forward(self, image: Tensor) -> Tensor:
        """Convolved and activated, twice."""
        image = self.first_activation(self.first(image))
        return self.second_activation(self.second(image))


@savable
class FeedForward(nn.Module):
    """Two linear maps with an activation between, at every index of whatever leads: m to f and back (Figure 24).

    In training `dropout` is the probability that one of the f units is left out. Without gradients nn.ReLU works in
    place. Weights and biases begin as nn.Linear's do, uniform within ±(inputs of the map)^-½. Parameters: 2mf, and
    m + f biases.

    >>> FeedForward(m=128, f=512)(torch.rand(20, 128)).shape
    torch.Size([20, 128])
    """

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
        self.m, self.f, self.dropout = m, f, dropout
        self.L1 = nn.Linear(m, f, bias, device, dtype)
        self.activation = _hidden(activation).to(device=device, dtype=dtype)
        self.L2 = nn.Linear(f, m, bias, device, dtype)

    @circuit("... m -> ... m", fixed="m")
    def forward(self, input: Tensor) -> Tensor:
        """Each vector by itself through both maps."""
        units = self.activation(self.L1(input))
        if self.dropout and self.training:
            units = F.dropout(units, self.dropout)
        return self.L2(units)


class _HiddenReLU(nn.ReLU):
    """nn.ReLU, in place while no gradients are recorded: hooks that ask for them would refuse it."""

    def forward(self, input: Tensor) -> Tensor:
        """Each number, but not below 0."""
        return F.relu(input, inplace=not torch.is_grad_enabled())

    def _get_name(self) -> str:
        return "ReLU"


def _hidden(make: Callable[[], nn.Module]) -> nn.Module:
    """The activation between two linear maps, whose input is new and nobody's."""
    return _HiddenReLU() if make is nn.ReLU else make()


def _activation(make: Callable[[], nn.Module], *, in_place: bool) -> nn.Module:
    """The activation; nn.ReLU in place where nobody needs what stood there before."""
    return nn.ReLU(inplace=True) if in_place and make is nn.ReLU else make()


def he_normal(convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw a weight anew, normal with variance 2 by the inputs of one output; the bias is 0.

    An output of a transposed convolution that strides by its kernel has one input for each channel.
    """
    weight = convolution.weight
    inputs = weight[0].numel() if isinstance(convolution, nn.Conv2d) else convolution.in_channels
    nn.init.normal_(weight, std=(2 / inputs) ** 0.5 if inputs else 0.0)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


@circuit("b c h w -> b c h w")
def channels_last(image: Tensor) -> Tensor:
    """The image itself, with the channels of a pixel side by side in memory: the layout convolutions are fast in.

    The kernel copies, so that a single channel, too, has the strides by which torch chooses a convolution. It goes by
    way of a rearrangement, which torch.vmap can follow where it cannot `memory_format`. Doubles stay as they are: on
    CPU nothing is faster for them, and torch.vmap of a gradient fails.
    """
    return image


@channels_last.kernel
def _(image: Tensor) -> Tensor:
    """One copy, but for doubles."""
    if image.dtype == torch.float64:
        return image
    copied = rearrange(image, "b c h w -> b h w c").clone(memory_format=torch.contiguous_format)
    return rearrange(copied, "b h w c -> b c h w")


@circuit("b c h w -> b c h w")
def channels_first(image: Tensor) -> Tensor:
    """The image itself, in the layout of a new tensor, each channel a picture."""
    return image


@channels_first.kernel
def _(image: Tensor) -> Tensor:
    """A copy, unless it has this layout."""
    return image.contiguous()
