"""Position encodings: sinusoidal or learned vectors that are added to the input, and rotary embeddings (RoPE).

Every encoding takes `start`, the position of the first vector, so that a sequence may be processed in pieces. The
angles of sinusoidal and rotary encodings are computed on every call, in float32, or float64 for float64 inputs
(bfloat16 cannot represent 257). No table is stored, so they have no maximal length and no buffer to initialize.

Source: Vaswani et al. 2017, section 3.5, for sinusoidal encodings; Gehring et al. 2017 for learned ones; Su et al.
2021, RoFormer, for rotary ones.
"""

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from ..weights.files import savable
from .sizes import is_whole, refuse_sizes_below_one


@savable
class SinusoidalPositions(nn.Module):
    """Add the sine of p / 10000^(2i/m), for position p, to column 2i, and the cosine to column 2i + 1.

    With an odd m the last column is a sine. No parameters.

    Args:
        m: Width of the vectors.

    Raises:
        CircuitError: if m is below 1.

    >>> SinusoidalPositions(m=4)(torch.zeros(2, 4))
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """

    def __init__(self, m: int) -> None:
        super().__init__()
        refuse_sizes_below_one("SinusoidalPositions", m=m)
        self.m = m

    @circuit("... x m -> ... x m", fixed="m")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Return each vector plus the sines and cosines of its position.

        Args:
            input: The vectors, `... x m`.
            start: Position of the first vector.

        Raises:
            ShapeError: if the width is not m.
            CircuitError: if `start` is below 0.
        """
        angle = _angles(input, start, self.m, 10000.0)
        waves = torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)
        return input + waves[:, : self.m].to(input.dtype)


@savable
class LearnedPositions(nn.Module):
    """Add a learned vector for each of x_max positions.

    The vectors are initialized normal with standard deviation 0.02, as in GPT-2 and BERT. Parameters: m x_max.

    Args:
        x_max: Number of positions, the maximal length of a sequence.
        m: Width of the vectors.
        device: Device of the parameter.
        dtype: Dtype of the parameter.

    Raises:
        CircuitError: if a size is below 1.

    >>> LearnedPositions(512, m=4)(torch.rand(2, 20, 4)).shape
    torch.Size([2, 20, 4])
    """

    def __init__(
        self, x_max: int, m: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("LearnedPositions", x_max=x_max, m=m)
        self.m = m
        self.weight = nn.Parameter(torch.empty(x_max, m, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize the vectors."""
        nn.init.normal_(self.weight, std=0.02)

    @circuit("... x m -> ... x m", fixed="m")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Return each vector plus the learned vector of its position.

        Args:
            input: The vectors, `... x m`.
            start: Position of the first vector.

        Raises:
            ShapeError: if the width is not m.
            CircuitError: if `start` is below 0, or `start` + x is above x_max.
        """
        _refuse_negative(start)
        length, learned = input.shape[-2], self.weight.shape[0]
        if start + length > learned:
            if isinstance(length, torch.SymInt):  # the size of a free axis while a diagram is recorded
                raise CircuitError(
                    f"LearnedPositions: {learned} positions are learned, too few for a symbolic length, which has no"
                    f' upper limit; give it a size up to {learned}, as in trace(model, sizes={{"x": {learned}}})'
                )
            raise CircuitError(f"LearnedPositions: {length} vectors from position {start} on, {learned} learned")
        return input + self.weight[start : start + length]

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return f"x_max={self.weight.shape[0]}, m={self.m}"


@savable
class RotaryPositions(nn.Module):
    """Rotary position embeddings (RoPE): at position p, entries (i, i + k/2) are rotated by the angle p / base^(2i/k).

    The score of a rotated query and a rotated key depends only on the distance between their positions. Entries of the
    two halves are paired as in GPT-NeoX and Llama; Su et al. pair neighbours 2i and 2i + 1, which is the same up to a
    permutation of the entries. No parameters.

    Args:
        k: Width of the vectors, an even number.
        base: Base of the frequencies.

    Raises:
        CircuitError: if k is odd or below 2, or `base` is not above 0.

    >>> RotaryPositions(k=4)(torch.ones(2, 4))
    tensor([[ 1.0000,  1.0000,  1.0000,  1.0000],
            [-0.3012,  0.9900,  1.3818,  1.0099]])
    """

    def __init__(self, k: int, base: float = 10000.0) -> None:
        super().__init__()
        if not is_whole(k, 2) or k % 2:
            near = f"{k - 1} or {k + 1}" if is_whole(k, 3) else "2"
            raise CircuitError(f"RotaryPositions: entries are rotated in pairs; k may be {near}, not {k}")
        if not base > 0:
            raise CircuitError(f"RotaryPositions: base is {base}; it may be any number above 0")
        self.k, self.base = k, base

    @circuit("... x k -> ... x k", fixed="k")
    def forward(self, input: Tensor, start: int = 0) -> Tensor:
        """Return each vector, rotated by the angles of its position.

        Args:
            input: The vectors, `... x k`.
            start: Position of the first vector.

        Raises:
            ShapeError: if the width is not k.
            CircuitError: if `start` is below 0.
        """
        angle = _angles(input, start, self.k, self.base)
        cosine, sine = angle.cos(), angle.sin()
        first, second = input.to(angle.dtype).chunk(2, -1)
        rotated = torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
        return rotated.to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return f"k={self.k}, base={self.base}"


def _angles(input: Tensor, start: int, width: int, base: float) -> Tensor:
    """Return p base^(-2i/width) for the position p of each vector (rows) and each pair i of entries (columns).

    The product is elementwise, since autocast would compute an einsum in bfloat16.
    """
    _refuse_negative(start)
    precise = torch.float64 if input.dtype == torch.float64 else torch.float32
    frequency = base ** (torch.arange(0, -width, -2, device=input.device, dtype=precise) / width)
    position = torch.arange(start, start + input.shape[-2], device=input.device, dtype=precise)
    return position[:, None] * frequency


def _refuse_negative(start: int) -> None:
    """Raise CircuitError if the first position is below 0."""
    if start < 0:
        raise CircuitError(f"start, the first vector's position, is {start}; it may be 0 or more")
