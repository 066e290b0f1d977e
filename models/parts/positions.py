"""Where in a sequence a vector stands: added to it, as sines or as learned vectors, or as an angle it is turned by.

Every encoding takes `start`, the position of the first vector, so that a sequence may come in pieces. Angles are
computed as they are needed, in float32 at least whatever the dtype (bfloat16 cannot tell 256 from 257): nothing is
stored, so no sequence is too long and nothing can be left unset.

Source: Vaswani et al. 2017, section 3.5; Gehring et al. 2017 for learned ones; Su et al. 2021, RoFormer, for rotary.
"""

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from ..weights.files import savable


@savable
class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position: column 2i gets sin(p / 10000^(2i/m)), column 2i + 1 its cosine.

    No parameters. With an odd m the last column is a sine. Raises CircuitError for m below 1.

    >>> SinusoidalPositions(m=4)(torch.zeros(2, 4))
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        if m < 1:
            raise CircuitError(f"SinusoidalPositions: m is {m}; it may be 1 or more")
        self.m = m

    @circuit("... x m -> ... x m", fixed="m")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Each vector plus that of its position; the first stands at `start`."""
        angle = _angles(input, start, self.m, 10000.0)
        waves = torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)
        return input + waves[:, : self.m].to(input.dtype)


@savable
class LearnedPositions(nn.Module):
    """Adds a learned vector to each of up to x_max positions.

    The vectors begin normal, with standard deviation 0.02, as GPT-2's and BERT's do. Parameters: m x_max. Raises
    CircuitError for sizes below 1.

    >>> LearnedPositions(512, m=4)(torch.rand(2, 20, 4)).shape
    torch.Size([2, 20, 4])
    """

    def __init__(
        self, x_max: int, m: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        for name, size in {"x_max": x_max, "m": m}.items():
            if size < 1:
                raise CircuitError(f"LearnedPositions: {name} is {size}; it may be 1 or more")
        self.m = m
        self.weight = nn.Parameter(torch.empty(x_max, m, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.normal_(self.weight, std=0.02)

    @circuit("... x m -> ... x m", fixed="m")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Each vector plus that of its position; raises CircuitError where the last stands beyond all learned ones."""
        _refuse_before_first(start)
        length, learned = input.shape[-2], self.weight.shape[0]
        if start + length > learned:
            if isinstance(length, torch.SymInt):  # while a diagram is recorded a free size is some larger number
                raise CircuitError(
                    f"LearnedPositions: {learned} positions are learned, which is not enough for a length that may be"
                    f' any; give it a size up to {learned}, as in trace(model, sizes={{"x": {learned}}})'
                )
            raise CircuitError(f"LearnedPositions: {length} vectors from position {start} on, {learned} learned")
        return input + self.weight[start : start + length]

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return f"x_max={self.weight.shape[0]}, m={self.m}"


@savable
class RotaryPositions(nn.Module):
    """Turns each vector by its position: entries i and i + k/2 are a point in a plane, turned by p / base^(2i/k).

    What a query and a key then score depends on how far apart they stand, not on where. The halves are paired as in
    GPT-NeoX and Llama; Su et al. pair neighbours 2i and 2i + 1, the same up to an order of the entries. No parameters.
    Raises CircuitError for an odd k, where one entry would have no partner.

    >>> RotaryPositions(k=4)(torch.ones(2, 4))
    tensor([[ 1.0000,  1.0000,  1.0000,  1.0000],
            [-0.3012,  0.9900,  1.3818,  1.0099]])
    """

    def __init__(self, k: int, base: float = 10000.0) -> None:
        super().__init__()
        if k < 2 or k % 2:
            near = "2" if k < 3 else f"{k - 1} or {k + 1}"
            raise CircuitError(f"RotaryPositions: entries are turned in pairs; k may be {near}, not {k}")
        if base <= 0:
            raise CircuitError(f"RotaryPositions: base is {base}; it may be any number above 0")
        self.k, self.base = k, base

    @circuit("... x k -> ... x k", fixed="k")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Each vector, turned; the first stands at `start`."""
        angle = _angles(input, start, self.k, self.base)
        cosine, sine = angle.cos(), angle.sin()
        first, second = input.to(angle.dtype).chunk(2, -1)
        turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
        return turned.to(input.dtype)

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`."""
        return f"k={self.k}, base={self.base}"


def _angles(input: Tensor, start: int, width: int, base: float) -> Tensor:
    """Position p of each of the input's vectors times base^(-2i/width), for each pair i of entries.

    A product of columns and rows, since autocast would round an einsum to bfloat16.
    """
    _refuse_before_first(start)
    precise = torch.float64 if input.dtype == torch.float64 else torch.float32
    frequency = base ** (torch.arange(0, -width, -2, device=input.device, dtype=precise) / width)
    position = torch.arange(start, start + input.shape[-2], device=input.device, dtype=precise)
    return position[:, None] * frequency


def _refuse_before_first(start: int) -> None:
    """Raise CircuitError for a position below 0."""
    if start < 0:
        raise CircuitError(f"the first vector stands at position {start}; it may be 0 or more")
