"""summary: the diagram of a model under the name, and with the arguments, that other libraries' summaries have."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.diagram import Diagram
from circuits.errors import CircuitError, entry_point
from circuits.recording.trace import trace

Sizes = Sequence[int] | Sequence[Sequence[int]]
"""The sizes of one tensor, or of several."""


@entry_point
def summary(
    target: Any,
    /,
    *args: Any,
    input_size: Sizes | None = None,
    axes: str | None = None,
    sizes: Mapping[str, int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    **kwargs: Any,
) -> Diagram:
    """Return the diagram of a model, which prints as a table with totals: `print(summary(model, input_size=(8, 3)))`.

    It is what `trace` returns: nothing is computed, the model is unchanged, and nothing is printed.

    Args:
        target: The circuit, `nn.Module` or function.
        *args: The inputs; their data is not used. If there are none, inputs are made from `input_size` or `axes`, or
            else from the signature of a circuit.
        input_size: The sizes of the tensor that the model takes, `(8, 3, 32, 32)`, or of several, `[(8, 3), (8, 5)]`.
        axes: The axes of these tensors, separated by commas: `"b 3 h w"`. The sizes of letters are free.
        sizes: Sizes of letters.
        dtypes: The dtypes of the tensors of `input_size`; None: that of the model's first floating-point parameter.
        **kwargs: The keyword arguments of the call.

    Raises:
        CircuitError: More than one of inputs, `input_size` and `axes` is given, or `input_size` and `dtypes` do not
            fit; and as for `trace`.

    >>> print(summary(torch.nn.Linear(4, 3), input_size=(2, 4)))
    box       sizes       parameters  notes
    Linear    2 4 -> 2 3          15
      linear  2 4 -> 2 3          15  weight, bias
    <BLANKLINE>
    parameters   15 (60 B): all trained
    activations  6 (24 B)
    """
    given = {"inputs": bool(args), "input_size=": input_size is not None, "axes=": axes is not None}
    several = [name for name, is_given in given.items() if is_given]
    if len(several) > 1:
        raise CircuitError(f"summary takes {' or '.join(several)}, not both: each says what the model is called with")
    if dtypes is not None and input_size is None:
        raise CircuitError("dtypes are those of the tensors of input_size=, which is not given")
    if dtypes is not None and input_size is not None:
        args = tuple(_tensors(shapes_of(input_size), dtypes, target))
    elif input_size is not None:
        axes = axes_of_sizes(input_size)
    return trace(target, *args, axes=axes, sizes=sizes, **kwargs)


def axes_of_sizes(input_size: Any) -> str:
    """Return the sizes of one tensor, or of several, as the text of `axes`.

    >>> axes_of_sizes((8, 3)), axes_of_sizes([(8, 3), (5,)])
    ('8 3', '8 3, 5')
    """
    return ", ".join([" ".join([f"{size}" for size in shape]) for shape in shapes_of(input_size)])


def shapes_of(input_size: Any) -> Sequence[Sequence[int]]:
    """Return the sizes of one tensor, or of several, as those of several.

    Raises:
        CircuitError: They are no sizes.
    """
    shapes = input_size if isinstance(input_size, (tuple, list)) else (input_size,)
    shapes = shapes if shapes and all(isinstance(each, (tuple, list)) for each in shapes) else (shapes,)
    if not all(type(size) is int and size >= 0 for shape in shapes for size in shape):
        raise CircuitError(
            f"input_size is {input_size!r}, but it must be the sizes of a tensor, (8, 3), or of several, [(8, 3), (5,)]"
        )
    return shapes


def _tensors(shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype], target: Any) -> list[Tensor]:
    """Return tensors of these sizes and dtypes, on the device of the model; their data is never set or read."""
    if len(dtypes) != len(shapes):
        raise CircuitError(f"there are {len(dtypes)} dtypes for {len(shapes)} tensors of input_size=")
    parameters = getattr(target, "parameters", list)()
    device = next((parameter.device for parameter in parameters), None)
    return [torch.empty(*shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, dtypes, strict=True)]


__all__ = ["axes_of_sizes", "shapes_of", "summary"]
