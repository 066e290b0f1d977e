"""Reverse rules of contractions and matrix products.

The cotangent of an operand is a contraction of `dy` with the other operands. Along an axis that the forward pass summed
over, the cotangent is copied; along one that it copied, the cotangent is summed.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits import verbs
from circuits.autodiff.rules.registry import defines, is_one, reverses, times, unbroadcast
from circuits.naming import read_axes
from circuits.signature import Rest

# Contractions ---------------------------------------------------------------------------------------------------------


@reverses(verbs.einsum)
def einsum_verb(dy: Tensor, args: Any) -> Any:
    """The cotangent of each operand: dy contracted with the other operands to the axes of the operand.

    Complex operands are conjugated, as in torch's convention.
    """
    *operands, pattern = args
    operands = [each.conj() if each.is_complex() else each for each in operands]
    left, _, right = pattern.partition("->")
    sides = [read_axes(side) for side in left.split(",")]
    found = _operand_cotangents(
        dy, list(operands), [_axis_texts(side) for side in sides], _axis_texts(read_axes(right)), verbs.einsum
    )
    return {"args": [*found, None]}


def _axis_texts(axes: Any) -> list[str]:
    """Return the axes of one tensor of a pattern as texts; `...` is one of them."""
    return ["..." if isinstance(term, Rest) else str(term) for term in axes]


@reverses("einsum")
def einsum(dy: Tensor, equation: str, tensors: Sequence[Tensor]) -> Any:
    """The cotangent of each operand: dy contracted with the others to the operand's axes; `equation` is torch's."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = [_axis_letters(side) for side in left.split(",")]
    letters = [each for side in sides for each in side]
    once = sorted([each for each in set(letters) if letters.count(each) == 1 and each != "..."])
    out = _axis_letters(right) if arrow else ["..."] * ("..." in letters) + once
    return {"tensors": _operand_cotangents(dy, list(tensors), sides, out, _torch_einsum)}


def _axis_letters(text: str) -> list[str]:
    """Return the axes of one tensor of a torch equation: single letters, and `...`."""
    return ["..." if each == "…" else each for each in text.replace("...", "…")]


def _torch_einsum(*operands_and_pattern: Any) -> Tensor:
    """Return torch's einsum, with the arguments of `verbs.einsum`: the operands, then a pattern with spaces."""
    *operands, pattern = operands_and_pattern
    return torch.einsum(pattern.replace(" ", ""), *operands)


def _operand_cotangents(
    dy: Tensor, operands: list[Tensor], sides: list[list[str]], out: list[str], einsum: Any
) -> list[Tensor]:
    """Return the cotangents of all operands of a contraction."""
    return [_operand_cotangent(position, dy, operands, sides, out, einsum) for position in range(len(operands))]


def _operand_cotangent(
    position: int, dy: Tensor, operands: list[Tensor], sides: list[list[str]], out: list[str], einsum: Any
) -> Tensor:
    """Return the cotangent of the operand at `position`.

    An axis that neither the output nor another operand has was summed over, so that the cotangent is copied along it.
    If an axis is named twice in the operand, only the diagonal was read, and the cotangent is 0 elsewhere.
    """
    like, side = operands[position], sides[position]
    others = [
        (tensor, axes) for here, (tensor, axes) in enumerate(zip(operands, sides, strict=True)) if here != position
    ]
    available = {*out, *[axis for _, axes in others for axis in axes]}
    kept = [axis for axis in dict.fromkeys(side) if axis in available]
    factors = [(dy, out), *others]
    pattern = f"{', '.join([' '.join(axes) for _, axes in factors])} -> {' '.join(kept)}"
    if factors == [(dy, out)] and kept == out:
        cotangent = dy
    else:
        cotangent = einsum(*[tensor for tensor, _ in factors], pattern)
    rest = like.ndim - len([axis for axis in side if axis != "..."])
    found: Any = unbroadcast(_expanded(cotangent, like, side, kept, rest), like)
    return found.expand(like.shape) if any(map(is_one, found.shape)) else found


def _expanded(cotangent: Tensor, like: Tensor, side: list[str], kept: list[str], rest: int) -> Tensor:
    """Return the cotangent copied along the axes that it lacks, and 0 off the diagonal of axes named twice.

    `...` stands for `rest` axes of the operand, which may be none or several.
    """
    positions: dict[str, list[int]] = {}
    position = 0
    for axis in side:
        positions.setdefault(axis, []).append(position)
        position += rest if axis == "..." else 1
    missing = [axis for axis in side if axis not in kept]
    if "..." in kept and cotangent.ndim > rest + len(kept) - 1:
        extra = cotangent.ndim - rest - len(kept) + 1
        start = kept.index("...")
        cotangent = cotangent.sum(list(range(start, start + extra)))
    for axis in dict.fromkeys(missing):
        where = len(dict.fromkeys(side[: side.index(axis)]))
        where += (rest - 1) if "..." in side[: side.index(axis)] else 0
        for _ in range(rest if axis == "..." else 1):
            cotangent = cotangent.unsqueeze(where)
    if missing and all(len(each) == 1 for each in positions.values()):
        return cotangent.expand(like.shape)
    repeated = any(len(each) > 1 for each in positions.values())
    return _on_diagonals(cotangent, like, side, positions) if repeated else cotangent


def _on_diagonals(cotangent: Tensor, like: Tensor, side: list[str], positions: dict[str, list[int]]) -> Tensor:
    """Return the cotangent where all axes of the same name have the same index, and zeros elsewhere."""
    shape: list[Any] = list(like.shape)
    for where in positions.values():
        for extra in where[1:]:
            cotangent = cotangent.unsqueeze(extra)
    cotangent = cotangent.expand(shape)
    for where in positions.values():
        first = torch.arange(shape[where[0]], device=like.device)
        for extra in where[1:]:
            second = torch.arange(shape[extra], device=like.device)
            one = first.reshape([-1 if d == where[0] else 1 for d in range(like.ndim)])
            other = second.reshape([-1 if d == extra else 1 for d in range(like.ndim)])
            cotangent = cotangent.masked_fill(one != other, 0)
    return cotangent


@reverses("linear")
def linear(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    """dx = dy W, dW = dyᵀ x, and the cotangent of the bias is the sum of dy over all but the last axis."""
    if weight.ndim == 1:
        return {
            "x": dy.unsqueeze(-1) * weight,
            "weight": unbroadcast(dy.unsqueeze(-1) * x, weight),
            "bias": unbroadcast(dy, bias),
        }
    return {
        "x": verbs.einsum(dy, weight, "... o, o i -> ... i"),
        "weight": verbs.einsum(dy, x, "... o, ... i -> o i"),
        "bias": unbroadcast(dy, bias),
    }


@reverses("matmul")
def matmul(dy: Tensor, x: Tensor, other: Tensor) -> Any:
    """dx = dy otherᵀ, dother = xᵀ dy, summed over the axes along which an operand was broadcast."""
    if x.ndim == 1 and other.ndim == 1:
        return {"x": dy * other, "other": dy * x}
    if x.ndim == 1:
        return {"x": unbroadcast(verbs.einsum(other, dy, "... i o, ... o -> ... i"), x),
                "other": unbroadcast(x.unsqueeze(-1) * dy.unsqueeze(-2), other)}  # fmt: skip
    if other.ndim == 1:
        return {"x": dy.unsqueeze(-1) * other, "other": verbs.einsum(x, dy, "... o i, ... o -> i")}
    return {"x": unbroadcast(dy @ other.mT, x), "other": unbroadcast(x.mT @ dy, other)}


@reverses("mm bmm")
def mm(dy: Tensor, x: Tensor, mat2: Tensor) -> Any:
    """dx = dy mat2ᵀ, dmat2 = xᵀ dy, also for batches of matrices."""
    return {"x": dy @ mat2.mT, "mat2": x.mT @ dy}


@reverses("mv")
def mv(dy: Tensor, x: Tensor, vec: Tensor) -> Any:
    """dx = dy vecᵀ (outer product), dvec = xᵀ dy."""
    return {"x": dy.unsqueeze(-1) * vec, "vec": x.mT @ dy}


@reverses("dot vdot")
def dot(dy: Tensor, x: Tensor, tensor: Any = None, other: Any = None) -> Any:
    """The cotangent of each vector is dy times the other vector."""
    vector = other if tensor is None else tensor
    return {"x": dy * vector, "other" if tensor is None else "tensor": dy * x}


@reverses("outer ger")
def outer(dy: Tensor, x: Tensor, vec2: Tensor) -> Any:
    """dx = dy vec2, dvec2 = dyᵀ x."""
    return {"x": dy @ vec2, "vec2": dy.mT @ x}


@reverses("addmm")
def addmm(dy: Tensor, x: Tensor, mat1: Tensor, mat2: Tensor, beta: Any, alpha: Any) -> Any:
    """y = β x + α mat1 mat2: dx = β dy, dmat1 = α dy mat2ᵀ, dmat2 = α mat1ᵀ dy."""
    return {
        "x": unbroadcast(times(dy, beta), x),
        "mat1": times(dy @ mat2.mT, alpha),
        "mat2": times(mat1.mT @ dy, alpha),
    }


@reverses("baddbmm")
def baddbmm(dy: Tensor, x: Tensor, batch1: Tensor, batch2: Tensor, beta: Any, alpha: Any) -> Any:
    """y = β x + α batch1 batch2, for batches of matrices: the cotangents are those of `addmm`."""
    found = addmm(dy, x, batch1, batch2, beta, alpha)
    return {"x": found["x"], "batch1": found["mat1"], "batch2": found["mat2"]}


@reverses("addmv")
def addmv(dy: Tensor, x: Tensor, mat: Tensor, vec: Tensor, beta: Any, alpha: Any) -> Any:
    """y = β x + α mat vec: dx = β dy, dmat = α dy vecᵀ, dvec = α matᵀ dy."""
    return {
        "x": unbroadcast(times(dy, beta), x),
        "mat": times(dy.unsqueeze(-1) * vec, alpha),
        "vec": times(mat.mT @ dy, alpha),
    }


@defines("bilinear")
def bilinear(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return, for each output feature o, the sum of x[i] weight[o, i, j] other[j] over i and j, and the bias."""
    found = torch.einsum("...i,oij,...j->...o", x, weight, other)
    return found if bias is None else found + bias
