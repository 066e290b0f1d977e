"""Random tensors for the inputs of a circuit, by dtype or from the caller's `inputs=`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circuits.errors import CircuitError

Source = range | torch.dtype | Callable[[Sequence[int]], Tensor] | None
"""How the values of an input are made: integers of a range, random numbers of a dtype, or a function of the shape.

None means that an optional tensor is never passed.
"""


def random_tensor(
    law: str, name: str, source: Source, shape: tuple[int, ...], declared: torch.dtype | None, dtype: torch.dtype
) -> Tensor:
    """Return a random tensor for one input.

    Args:
        law: The name of the law, for the message.
        name: The name of the input, for the message.
        source: How the values are made; None for random numbers of the dtype.
        shape: The shape.
        declared: The dtype that the circuit declares for the input, if any.
        dtype: The dtype of the input if neither `source` nor the circuit gives one.

    Raises:
        CircuitError: The input has an integer dtype, and `source` is neither a range nor a function.
    """
    if isinstance(source, range):
        return torch.tensor(source)[torch.randint(len(source), shape)].to(declared or torch.long)
    if source is None or isinstance(source, torch.dtype):
        wanted = source or declared or dtype
        if wanted == torch.bool:
            return torch.rand(shape) < 0.5
        if not wanted.is_floating_point and not wanted.is_complex:
            raise CircuitError(
                f"laws.{law}: {name} is {wanted}; pass the values it may have, inputs={{{name!r}: range(10)}}"
            )
        number = torch.complex128 if wanted.is_complex else torch.float64
        return torch.randn(shape, dtype=number).to(wanted)
    made = source(shape)
    return made.to(declared or dtype) if made.is_floating_point() else made
