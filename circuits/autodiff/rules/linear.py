"""Linear maps back: an axis that was summed over is copied along, one that was copied along is summed over.

A contraction's cotangents are contractions of the cotangent with what the tensor met; a convolution's by its image is
the transposed convolution.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits import verbs
from circuits.autodiff.rules.registry import is_one, reverses, times, unbroadcast
from circuits.naming import read_axes
from circuits.signature import Rest

# Contractions ---------------------------------------------------------------------------------------------------------


@reverses(verbs.einsum)
def einsum_verb(dy: Tensor, args: Any) -> Any:
    """Each tensor's cotangent: the others and `dy` meet along the axes that the tensor lacks."""
    *given, pattern = args
    left, _, right = pattern.partition("->")
    sides = [read_axes(side) for side in left.split(",")]
    found = _contracted(dy, list(given), [_words(side) for side in sides], _words(read_axes(right)), verbs.einsum)
    return {"args": [*found, None]}


def _words(axes: Any) -> list[str]:
    return ["..." if isinstance(term, Rest) else str(term) for term in axes]


@reverses("einsum")
def einsum(dy: Tensor, equation: str, tensors: Sequence[Tensor]) -> Any:
    """The same for torch's own einsum."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = [_letters(side) for side in left.split(",")]
    letters = [each for side in sides for each in side]
    once = sorted([each for each in set(letters) if letters.count(each) == 1 and each != "..."])
    out = _letters(right) if arrow else ["..."] * ("..." in letters) + once
    return {"tensors": _contracted(dy, list(tensors), sides, out, _torch_einsum)}


def _letters(text: str) -> list[str]:
    return ["..." if each == "…" else each for each in text.replace("...", "…")]


def _torch_einsum(*operands_and_pattern: Any) -> Tensor:
    *operands, pattern = operands_and_pattern
    return torch.einsum(pattern.replace(" ", ""), *operands)


def _contracted(dy: Tensor, given: list[Tensor], sides: list[list[str]], out: list[str], einsum: Any) -> list[Tensor]:
    return [_one(place, dy, given, sides, out, einsum) for place in range(len(given))]


def _one(place: int, dy: Tensor, given: list[Tensor], sides: list[list[str]], out: list[str], einsum: Any) -> Tensor:
    """The cotangent of one tensor of a contraction.

    Axes that only this tensor has were summed away, so the cotangent is copied along them; of an axis that stands
    twice in it only the diagonal counts.
    """
    like, side = given[place], sides[place]
    others = [(tensor, axes) for here, (tensor, axes) in enumerate(zip(given, sides, strict=True)) if here != place]
    told = {*out, *[axis for _, axes in others for axis in axes]}
    kept = [axis for axis in dict.fromkeys(side) if axis in told]
    met = [(dy, out), *others]
    pattern = f"{', '.join([' '.join(axes) for _, axes in met])} -> {' '.join(kept)}"
    if met == [(dy, out)] and kept == out:
        cotangent = dy
    else:
        cotangent = einsum(*[tensor for tensor, _ in met], pattern)
    rest = like.ndim - len([axis for axis in side if axis != "..."])
    found: Any = unbroadcast(_copied(cotangent, like, side, kept, rest), like)
    return found.expand(like.shape) if any(map(is_one, found.shape)) else found


def _copied(cotangent: Tensor, like: Tensor, side: list[str], kept: list[str], rest: int) -> Tensor:
    """Copied along the axes that are missing, and written on the diagonal of those that stand twice."""
    places: dict[str, list[int]] = {}
    place = 0
    for axis in side:
        places.setdefault(axis, []).append(place)
        place += rest if axis == "..." else 1
    single = [axis for axis in side if axis not in kept]
    if "..." in kept and cotangent.ndim > rest + len(kept) - 1:
        extra = cotangent.ndim - rest - len(kept) + 1
        start = kept.index("...")
        cotangent = cotangent.sum(list(range(start, start + extra)))
    for axis in dict.fromkeys(single):
        where = len(dict.fromkeys(side[: side.index(axis)]))
        where += (rest - 1) if "..." in side[: side.index(axis)] else 0
        cotangent = cotangent.unsqueeze(where)
    if single and all(len(each) == 1 for each in places.values()):
        return cotangent.expand(like.shape)
    return _on_diagonals(cotangent, like, side, places) if any(len(each) > 1 for each in places.values()) else cotangent


def _on_diagonals(cotangent: Tensor, like: Tensor, side: list[str], places: dict[str, list[int]]) -> Tensor:
    """Zeros but where the axes of one name have one index."""
    shape: list[Any] = list(like.shape)
    for where in places.values():
        for extra in where[1:]:
            cotangent = cotangent.unsqueeze(extra)
    cotangent = cotangent.expand(shape)
    for where in places.values():
        first = torch.arange(shape[where[0]], device=like.device)
        for extra in where[1:]:
            second = torch.arange(shape[extra], device=like.device)
            one = first.reshape([-1 if d == where[0] else 1 for d in range(like.ndim)])
            other = second.reshape([-1 if d == extra else 1 for d in range(like.ndim)])
            cotangent = cotangent.masked_fill(one != other, 0)
    return cotangent


@reverses("linear")
def linear(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    """dx = dy W, dW = dyᵀ x, db = the sum of dy: two contractions and a sum."""
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
    """dX = dY Bᵀ, dB = Xᵀ dY."""
    if x.ndim == 1 and other.ndim == 1:
        return {"x": dy * other, "other": dy * x}
    if x.ndim == 1:
        return {"x": fit_rows(verbs.einsum(other, dy, "... i o, ... o -> ... i"), x),
                "other": unbroadcast(x.unsqueeze(-1) * dy.unsqueeze(-2), other)}  # fmt: skip
    if other.ndim == 1:
        return {"x": dy.unsqueeze(-1) * other, "other": verbs.einsum(x, dy, "... o i, ... o -> i")}
    return {"x": unbroadcast(dy @ other.mT, x), "other": unbroadcast(x.mT @ dy, other)}


def fit_rows(cotangent: Tensor, like: Tensor) -> Tensor | None:
    """The same as `unbroadcast`, for what was copied along leading axes."""
    return unbroadcast(cotangent, like)


@reverses("mm bmm")
def mm(dy: Tensor, x: Tensor, mat2: Tensor) -> Any:
    """The same for matrices alone, and rows of them."""
    return {"x": dy @ mat2.mT, "mat2": x.mT @ dy}


@reverses("mv")
def mv(dy: Tensor, x: Tensor, vec: Tensor) -> Any:
    """A matrix and a vector."""
    return {"x": dy.unsqueeze(-1) * vec, "vec": x.mT @ dy}


@reverses("dot vdot")
def dot(dy: Tensor, x: Tensor, tensor: Any = None, other: Any = None) -> Any:
    """Of two vectors each is the other's gradient."""
    met = other if tensor is None else tensor
    return {"x": dy * met, "other" if tensor is None else "tensor": dy * x}


@reverses("outer ger")
def outer(dy: Tensor, x: Tensor, vec2: Tensor) -> Any:
    """Every number with every number."""
    return {"x": dy @ vec2, "vec2": dy.mT @ x}


@reverses("addmm")
def addmm(dy: Tensor, x: Tensor, mat1: Tensor, mat2: Tensor, beta: Any, alpha: Any) -> Any:
    """A product added."""
    return {
        "x": unbroadcast(times(dy, beta), x),
        "mat1": times(dy @ mat2.mT, alpha),
        "mat2": times(mat1.mT @ dy, alpha),
    }


@reverses("baddbmm")
def baddbmm(dy: Tensor, x: Tensor, batch1: Tensor, batch2: Tensor, beta: Any, alpha: Any) -> Any:
    """A row of products added."""
    found = addmm(dy, x, batch1, batch2, beta, alpha)
    return {"x": found["x"], "batch1": found["mat1"], "batch2": found["mat2"]}


@reverses("addmv")
def addmv(dy: Tensor, x: Tensor, mat: Tensor, vec: Tensor, beta: Any, alpha: Any) -> Any:
    """A matrix and a vector multiplied, and added."""
    return {
        "x": unbroadcast(times(dy, beta), x),
        "mat": times(dy.unsqueeze(-1) * vec, alpha),
        "vec": times(mat.mT @ dy, alpha),
    }
