"""Position encodings: sinusoidal or learned vectors that are added to the input, and rotary embeddings (RoPE).

Every encoding takes `start`, the position of the first vector, so that a sequence may be processed in pieces. Those
that are added take `padding`, the number of vectors of padding before each sequence, so that its first real vector is
at position 0; rotary scores depend on distances alone. The angles of sinusoidal and rotary encodings are computed on
every call, in float32, or float64 for float64 inputs (bfloat16 cannot represent 257). No table is stored, so they have
no maximal length and no buffer to initialize.

Source: Vaswani et al. 2017, section 3.5, for sinusoidal encodings; Gehring et al. 2017 for learned ones; Su et al.
2021, RoFormer, for rotary ones; Grattafiori et al. 2024, The Llama 3 Herd of Models, for their scaled frequencies.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit

from ..weights.files import savable
from .rotation import LastWaves, is_eager, rotate
from .sizes import refuse_negative_start, refuse_not_above_zero, refuse_odd, refuse_sizes_below_one


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

    @circuit("... x m -> ... x m", fixed="m", optional={"padding": "..."}, dtypes={"padding": torch.long})
    def forward(self, input: Tensor, start: int = 0, padding: Tensor | None = None) -> Tensor:
        """Return each vector plus the sines and cosines of its position.

        Args:
            input: The vectors, `... x m`.
            start: Position of the first vector.
            padding: If given, the number that is subtracted from the positions of each sequence, `...`; those below 0
                become 0.

        Raises:
            ShapeError: if the width is not m.
            CircuitError: if `start` is below 0.
        """
        angle = _angles(input, start, _frequencies(input, self.m, 10000.0), padding)
        waves = torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)
        return input + waves[..., : self.m].to(input.dtype)


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
        self.weight: nn.Parameter = nn.Parameter(torch.empty(x_max, m, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize the vectors."""
        nn.init.normal_(self.weight, std=0.02)

    @circuit("... x m -> ... x m", fixed="m", optional={"padding": "..."}, dtypes={"padding": torch.long})
    def forward(self, input: Tensor, start: int = 0, padding: Tensor | None = None) -> Tensor:
        """Return each vector plus the learned vector of its position.

        Args:
            input: The vectors, `... x m`.
            start: Position of the first vector.
            padding: If given, the number that is subtracted from the positions of each sequence, `...`; those below 0
                become 0.

        Raises:
            ShapeError: if the width is not m.
            CircuitError: if `start` is below 0, or `start` + x is above x_max.
        """
        refuse_negative_start(start)
        length, learned = input.shape[-2], self.weight.shape[0]
        if start + length > learned:
            if isinstance(length, torch.SymInt):  # the size of a free axis while a diagram is recorded
                raise CircuitError(
                    f"LearnedPositions: {learned} positions are learned, too few for a symbolic length, which has no"
                    f' upper limit; give it a size up to {learned}, as in trace(model, sizes={{"x": {learned}}})'
                )
            raise CircuitError(f"LearnedPositions: {length} vectors from position {start} on, {learned} learned")
        if padding is not None:
            return input + F.embedding(_positions(input, start, padding), self.weight)
        return input + self.weight[start : start + length]

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return f"x_max={self.weight.shape[0]}, m={self.m}"


@savable
class RotaryPositions(nn.Module):
    """Rotary position embeddings (RoPE): at position p, entries (i, i + r/2) are rotated by the angle p / base^(2i/r).

    The score of a rotated query and a rotated key depends only on the distance between their positions. Entries of the
    two halves are paired as in GPT-NeoX and Llama; Su et al. pair neighbours 2i and 2i + 1, which is the same up to a
    permutation of the entries. No parameters.

    Args:
        k: Width of the vectors, an even number.
        base: Base of the frequencies (`rope_theta`).
        rotated: Number r of entries that are rotated, the first ones, an even number; all k unless given.

    Raises:
        CircuitError: if k or `rotated` is odd or below 2, `rotated` is above k, or `base` is not above 0.

    >>> RotaryPositions(k=4)(torch.ones(2, 4))
    tensor([[ 1.0000,  1.0000,  1.0000,  1.0000],
            [-0.3012,  0.9900,  1.3818,  1.0099]])
    """

    k: int
    base: float

    rotated: int | None = None
    """The number of rotated entries; None for all, as in modules pickled before there was a choice."""

    def __init__(self, k: int, base: float = 10000.0, rotated: int | None = None) -> None:
        super().__init__()
        refuse_odd(type(self).__name__, k=k, rotated=k if rotated is None else rotated)
        if rotated is not None and rotated > k:
            raise CircuitError(f"{type(self).__name__}: rotated is {rotated}; it may be up to k, which is {k}")
        refuse_not_above_zero(type(self).__name__, base=base)
        self.k, self.base, self.rotated = k, base, None if rotated == k else rotated
        self.waves: LastWaves = LastWaves()

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
        angle = _angles(input, start, self.frequencies(input))
        return rotate(input, angle.cos(), angle.sin())

    @forward.kernel  # pyright: ignore[reportFunctionMemberAccess]
    def _(self, input: Tensor, start: int = 0) -> Tensor:
        """Use the cosines and sines of the last call, if it was at the same positions: queries, keys, other layers."""
        if not is_eager(input):
            angle = _angles(input, start, self.frequencies(input))
            return rotate(input, angle.cos(), angle.sin())
        key = start, input.shape[-2], input.dtype, torch.is_inference_mode_enabled(), self._settings()
        last = self.waves.last
        if last is None or last[0] != key:
            angle = _angles(input, start, self.frequencies(input))
            self.waves.last = last = key, (angle.cos(), angle.sin())
        return rotate(input, *last[1])

    def _settings(self) -> tuple[float | None, ...]:
        """Return the numbers that the frequencies depend on."""
        return self.k, self.base, self.rotated

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, also of one that was made before cosines and sines were kept."""
        super().__setstate__({"waves": LastWaves(), **state})

    def frequencies(self, like: Tensor) -> Tensor:
        """Return the angle between neighbouring positions for each pair of entries, on the device of `like`."""
        return _frequencies(like, self.rotated or self.k, self.base)

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return f"k={self.k}, base={self.base}" + (f", rotated={self.rotated}" if self.rotated else "")


@savable
class ScaledRotaryPositions(RotaryPositions):
    """Rotary position embeddings with the frequencies of Llama 3.1, for texts longer than those first trained on.

    With a wavelength above `length` / `low`, a frequency is divided by `factor`; with one below `length` / `high` it is
    unchanged; between the two it is a mixture. No parameters.

    Args:
        k: Width of the vectors, an even number.
        base: Base of the frequencies (`rope_theta`).
        factor: The number by which low frequencies are divided.
        low: Number of periods in `length` positions up to which a frequency is low (`low_freq_factor`).
        high: Number of periods in `length` positions from which on it is high (`high_freq_factor`).
        length: Number of positions first trained on (`original_max_position_embeddings`).

    Raises:
        CircuitError: if k is odd or below 2, a number is not above 0, or `high` is not above `low`.

    >>> ScaledRotaryPositions(4, 100.0, factor=8.0, low=1.0, high=4.0, length=20)(torch.ones(2, 4))
    tensor([[1.0000, 1.0000, 1.0000, 1.0000],
            [0.0335, 0.9874, 1.4138, 1.0124]])
    """

    factor: float
    low: float
    high: float
    length: int

    def __init__(
        self,
        k: int,
        base: float = 500000.0,
        *,
        factor: float = 8.0,
        low: float = 1.0,
        high: float = 4.0,
        length: int = 8192,
    ) -> None:
        super().__init__(k, base)
        refuse_not_above_zero("ScaledRotaryPositions", factor=factor, low=low, high=high, length=length)
        if not high > low:
            raise CircuitError(f"ScaledRotaryPositions: high is {high}; it may be any number above low, which is {low}")
        self.factor, self.low, self.high, self.length = factor, low, high, length

    def _settings(self) -> tuple[float | None, ...]:
        """Return the numbers that the frequencies depend on."""
        return *super()._settings(), self.factor, self.low, self.high, self.length

    def frequencies(self, like: Tensor) -> Tensor:
        """Return the angle between neighbouring positions for each pair of entries, on the device of `like`."""
        frequency = super().frequencies(like)
        periods = frequency * (self.length / (2 * math.pi))
        kept = ((periods - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency * (kept + (1 - kept) / self.factor)

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        options = f"factor={self.factor}, low={self.low}, high={self.high}, length={self.length}"
        return f"{super().extra_repr()}, {options}"


def _frequencies(like: Tensor, width: int, base: float) -> Tensor:
    """Return base^(-2i/width) for each i with 2i below the width, in float32, or in float64 if `like` is."""
    precise = torch.float64 if like.dtype == torch.float64 else torch.float32
    return base ** (torch.arange(0, -width, -2, device=like.device, dtype=precise) / width)


def _angles(input: Tensor, start: int, frequency: Tensor, padding: Tensor | None = None) -> Tensor:
    """Return the position of each vector (rows) times each frequency (columns).

    The product is elementwise, since autocast would compute an einsum in bfloat16.
    """
    refuse_negative_start(start)
    if padding is not None:
        return _positions(input, start, padding)[..., None] * frequency
    position = torch.arange(start, start + input.shape[-2], device=input.device, dtype=frequency.dtype)
    return position[:, None] * frequency


def _positions(input: Tensor, start: int, padding: Tensor) -> Tensor:
    """Return the position of each vector, `... x`: counted from `start`, less the padding, and 0 for padding."""
    position = torch.arange(start, start + input.shape[-2], device=input.device)
    return (position - padding[..., None]).clamp(min=0)
