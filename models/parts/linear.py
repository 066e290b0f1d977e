"""A learned linear map between named axes: nn.Linear on grouped input axes, with the output split into named axes;
and the head of a language model that is tied to its embedding.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, the learned box L of section 2.4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, Signature, circuit, rearrange

from ..weights.files import savable
from .sizes import is_whole


@savable
class Linear(nn.Module):
    """A learned linear map between named axes, at every index of the leading axes: `Linear("m -> h k", ...)`.

    The input axes are grouped into one, mapped by nn.Linear, and split into the output axes. The map is over all axes
    of the text: an axis on both sides is contracted in the input, and is a new axis of the same size in the output. The
    weight has nn.Linear's shape, (product of the output axes, product of the input axes), each group in the order
    written. Weight and bias are initialized as in nn.Linear: uniform within ±(product of the input axes)^-½.

    Parameters: (product of the output axes)·(product of the input axes), and (product of the output axes) more with a
    bias.

    Args:
        text: The axes of input and output, `"m -> h k"`, each a name; a leading `...` on both sides is implied.
        bias: Whether a learned tensor is added to the output.
        device, dtype: Those of the parameters.
        **sizes: The size of each axis by its name, such as `m=128, h=4, k=16`.

    Raises:
        SignatureError: If the text is not a signature.
        CircuitError: If the text does not have one input and one output, if an axis is not a name or occurs twice on a
            side, if `sizes` lacks an axis of the text or has one that the text lacks, or if a size is negative.

    >>> split = Linear("m -> h k", m=128, h=4, k=16)
    >>> split(torch.rand(20, 128)).shape, split.weight.shape
    (torch.Size([20, 4, 16]), torch.Size([64, 128]))
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

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
            faults = ("no size was given for", missing), ("unknown axis", unknown)
            listed = "; ".join([f"{fault} {' '.join(axes)}" for fault, axes in faults if axes])
            raise CircuitError(f'Linear("{text}"): {listed}')
        for name, size in sizes.items():
            if not is_whole(size, 0):
                raise CircuitError(f'Linear("{text}"): {name} is {size!r}; it may be a whole number, not negative')
        self.sizes = sizes
        rows, columns = (math.prod(sizes[name] for name in side) for side in (self.outputs, self.inputs))
        self.weight: nn.Parameter = nn.Parameter(torch.empty(rows, columns, device=device, dtype=dtype))
        self.bias: nn.Parameter | None = nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        left, right = " ".join(self.inputs), " ".join(self.outputs)
        self.join: str | None = None if len(self.inputs) == 1 else f"... {left} -> ... ({left})"
        self.split: str | None = None if len(self.outputs) == 1 else f"... ({right}) -> ... {right}"
        circuit(f"... {left} -> ... {right}", fixed=sizes)(self)

    def reset_parameters(self) -> None:
        """Re-initialize the weight and the bias, uniform within ±(product of the input axes)^-½."""
        bound = self.weight.shape[1] ** -0.5 if self.weight.shape[1] else 0.0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Return the linear map of the input at every index of its leading axes.

        Raises:
            ShapeError: If a named axis has another size than in `sizes`.
        """
        joined = input if self.join is None else rearrange(input, self.join)
        mapped = F.linear(joined, self.weight, self.bias)
        if self.split is None:
            return mapped
        return rearrange(mapped, self.split, **{name: self.sizes[name] for name in self.outputs})

    def extra_repr(self) -> str:
        """Return the text, the sizes and whether there is a bias, for `repr`."""
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f'"{" ".join(self.inputs)} -> {" ".join(self.outputs)}", {sizes}, bias={self.bias is not None}'


def tied_logits(vectors: Tensor, embedding: nn.Module) -> Tensor:
    """Return the logits of each token, `... v`, of a head that shares the weight of the embedding.

    Raises CircuitError if the embedding has no weight tensor, because it was quantized or wrapped.
    """
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, Tensor):
        raise CircuitError(
            "the head is tied: it reads the weight of the embedding, which is a"
            f" {type(embedding).__module__}.{type(embedding).__qualname__}, without a tensor `weight`; quantize or wrap"
            " the embedding of a model with tied=False"
        )
    return F.linear(vectors, weight)


def _sides(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the axis names on each side of the text, without a `...` that leads on both sides.

    Raises CircuitError if it is not the text of a linear map.
    """
    signature = Signature.parse(text)
    sides = [[f"{axis}" for axis in tensor] for tensor in (*signature.inputs, *signature.outputs)]
    have_rest = [side[:1] == ["..."] for side in sides]
    sides = [side[has_rest:] for side, has_rest in zip(sides, have_rest, strict=True)]
    are_names = all(name.isidentifier() for side in sides for name in side)
    if len(sides) != 2 or len(signature.inputs) != 1 or len(set(have_rest)) > 1 or not are_names:
        raise CircuitError(
            f'Linear("{text}"): expected the axes of one input and of one output, each a name, as in "m -> h k"'
        )
    if any(len({*side}) < len(side) for side in sides):
        raise CircuitError(f'Linear("{text}"): an axis may occur only once on a side')
    return tuple(sides[0]), tuple(sides[1])
