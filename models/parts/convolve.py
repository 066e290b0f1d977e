"""Convolution in any number of dimensions: a window, then a linear map over its channels and places; and its transpose.

The steps are stated once, as patterns. The transposed convolution is those steps from the last to the first, each in
its own transpose, and nothing more. Kernels are torch's own operators, for one, two and three axes of space; over more
axes the definition runs. As torch's, and as what signal processing calls a correlation, these do not flip the weight.
The modules that hold a weight are in `convolution`.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3; Dumoulin and Visin 2016, A guide to convolution
arithmetic for deep learning.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from circuits import circuit, einsum, fold, rearrange, transposed, unfold

from .space import Number, Padding, border, even, flat, longer, space, spread, unpadded, windows_over, within

Step = tuple[Callable[..., Tensor], str]
"""A verb and its pattern."""

_FORWARD: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_TURNED: dict[Callable[..., Tensor], Callable[..., Tensor]] = {rearrange: rearrange, einsum: einsum, unfold: fold}


def _steps(n: int, g: str) -> tuple[Step, ...]:
    """A convolution over n axes: look through windows, then meet the weight; where g is named, each group its own."""
    axes, windows, places = space(n)
    g = f"{g} " if g else ""
    steps: tuple[Step, ...] = (
        (unfold, f"... {g}c {axes} -> ... {g}c {windows} {places}"),
        (einsum, f"... {g}c {windows} {places}, {g}k c {places} -> ... {g}k {windows}"),
    )
    if not g:
        return steps
    split, join = f"... (g c) {axes} -> ... g c {axes}", f"... g k {windows} -> ... (g k) {windows}"
    return ((rearrange, split), *steps, (rearrange, join))


def _turned(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The transpose of a composition: its steps from the last to the first, each transposed."""
    return tuple([(_TURNED[verb], transposed(pattern)) for verb, pattern in reversed(steps)])


def _signature(n: int, g: str) -> str:
    """What a convolution over n axes takes to what, its channels in groups where g is named."""
    axes, windows, places = space(n)
    c, k = ("(g c)", "(g k)") if g else ("c", "k")
    return f"... {c} {axes}, {g} k c {places} -> ... {k} {windows}"


def _run(steps: tuple[Step, ...], image: Tensor, weight: Tensor, windows: Any, sizes: dict[str, int]) -> Tensor:
    """One step after another, each with what its verb takes."""
    for verb, pattern in steps:
        if verb is einsum:
            image = einsum(image, weight, pattern)
        elif verb is rearrange:
            image = rearrange(image, pattern, g=weight.shape[0])
        elif verb is unfold:
            image = unfold(image, pattern, *windows)
        else:
            image = fold(image, pattern, *windows, **sizes)
    return image


def _made(define: Callable[..., Tensor], name: str, signature: str, bias: str) -> Any:
    """The circuit of a definition, under its name."""
    define.__name__ = define.__qualname__ = name
    return circuit(signature, optional={"bias": bias})(define)


@cache
def _convolution(n: int, g: str) -> Callable[..., Tensor]:
    """The circuit, its weight in groups where g is named."""
    steps = _steps(n, g)

    def define(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """Look through windows, then meet the weight over channels and places."""
        answer = _run(steps, image, weight, windows_over(n, weight.shape[-n:], stride, padding, dilation, mode), {})
        return answer if bias is None else answer + spread(bias, n)

    made = _made(define, f"{'grouped_' * bool(g)}convolution{n}d", _signature(n, g), "(g k)" if g else "k")
    if n not in _FORWARD:
        return made

    @made.kernel
    def _(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """torch's operator, and F.pad before it for what that cannot pad."""
        groups = weight.shape[0] if g else 1
        kernels = weight.flatten(0, 1) if g else weight
        try:
            if mode == "zeros" and even(padding):
                return flat(n + 1, _FORWARD[n], image, kernels, bias, stride, padding, dilation, groups)
            padded = flat(n + 1, F.pad, image, border(n, padding), "constant" if mode == "zeros" else mode)
            return flat(n + 1, _FORWARD[n], padded, kernels, bias, stride, 0, dilation, groups)
        except RuntimeError:
            windows = windows_over(n, weight.shape[-n:], stride, padding, dilation, mode)
            for window, size in zip(windows, image.shape[-n:], strict=True):
                window.count(size)
            raise

    return made


@cache
def _transposed_convolution(n: int, g: str) -> Callable[..., Tensor]:
    """The transposed circuit, its weight in groups where g is named."""
    steps = _turned(_steps(n, g))

    def define(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        output_padding: Number = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """The steps of the convolution from the last to the first, each transposed."""
        windows = windows_over(n, weight.shape[-n:], stride, padding, dilation, mode)
        sizes = longer(windows, image.shape[-n:], output_padding)
        answer = _run(steps, image, weight, windows, sizes)
        return answer if bias is None else answer + spread(bias, n)

    name, signature = f"{'grouped_' * bool(g)}transposed_convolution{n}d", transposed(_signature(n, g))
    made = _made(define, name, signature, "(g c)" if g else "c")
    if n not in _TRANSPOSED:
        return made

    @made.kernel
    def _(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Number = 1,
        padding: Padding = 0,
        output_padding: Number = 0,
        dilation: Number = 1,
        mode: Any = "zeros",
    ) -> Tensor:
        """torch's operator; what it cannot pad is taken from the padded answer."""
        groups = weight.shape[0] if g else 1
        kernels = weight.flatten(0, 1) if g else weight
        if not within(output_padding, stride):
            windows = windows_over(n, weight.shape[-n:], stride, padding, dilation, mode)
            longer(windows, image.shape[-n:], output_padding)
        run = partial(flat, n + 1, _TRANSPOSED[n], image, kernels)
        try:
            if mode == "zeros" and even(padding):
                return run(bias, stride, padding, output_padding, groups, dilation)
            padded = run(None, stride, 0, output_padding, groups, dilation)
            answer = unpadded(n, padded, padding, mode)
            return answer if bias is None else answer + spread(bias, n)
        except RuntimeError:
            windows = windows_over(n, weight.shape[-n:], stride, padding, dilation, mode)
            longer(windows, image.shape[-n:], output_padding)
            raise

    return made


def convolution_over(n: int) -> Callable[..., Tensor]:
    """The circuit that convolves over n axes of space: `... c h w, k c i j -> ... k h' w'`, and an optional bias.

    It takes `stride`, `padding` and `dilation` as F.conv2d does, and `mode` as nn.Conv2d's padding_mode; an axis may
    have (before, after) for its padding. It raises ShapeError where axes clash or a window does not fit, and
    CircuitError for numbers that cannot be.

    >>> import torch
    >>> convolve = convolution_over(2)
    >>> convolve(torch.rand(5, 3, 8, 9), torch.rand(16, 3, 3, 3), stride=(1, 2), padding=1).shape
    torch.Size([5, 16, 8, 5])
    """
    return _convolution(n, "")


def grouped_convolution_over(n: int) -> Callable[..., Tensor]:
    """The same, by each of g groups of channels for itself: `... (g c) h w, g k c i j -> ... (g k) h' w'`.

    >>> import torch
    >>> grouped_convolution_over(1)(torch.rand(6, 9), torch.rand(3, 4, 2, 5)).shape
    torch.Size([12, 5])
    """
    return _convolution(n, "g")


def transposed_convolution_over(n: int) -> Callable[..., Tensor]:
    """The circuit that is the transpose of a convolution over n axes: `... k h' w', k c i j -> ... c h w`.

    The weight and the options are the convolution's. The answer is the shortest that the convolution would take to the
    size that came, and `output_padding` longer, which is less than the stride; Window.output_padding says which gives
    the size one wants. Raises as the convolution does.

    >>> import torch
    >>> convolve_back = transposed_convolution_over(2)
    >>> convolve_back(torch.rand(5, 16, 8, 5), torch.rand(16, 3, 3, 3), stride=(1, 2), padding=1).shape
    torch.Size([5, 3, 8, 9])
    """
    return _transposed_convolution(n, "")


def grouped_transposed_convolution_over(n: int) -> Callable[..., Tensor]:
    """The same, by each of g groups of channels for itself: `... (g k) h' w', g k c i j -> ... (g c) h w`.

    >>> import torch
    >>> grouped_transposed_convolution_over(1)(torch.rand(12, 5), torch.rand(3, 4, 2, 5)).shape
    torch.Size([6, 9])
    """
    return _transposed_convolution(n, "g")


convolution1d, convolution2d, convolution3d = (convolution_over(n) for n in (1, 2, 3))
grouped_convolution1d, grouped_convolution2d, grouped_convolution3d = (grouped_convolution_over(n) for n in (1, 2, 3))
transposed_convolution1d, transposed_convolution2d, transposed_convolution3d = (
    transposed_convolution_over(n) for n in (1, 2, 3)
)
grouped_transposed_convolution1d, grouped_transposed_convolution2d, grouped_transposed_convolution3d = (
    grouped_transposed_convolution_over(n) for n in (1, 2, 3)
)


def __getattr__(name: str) -> Callable[..., Tensor]:
    """The circuits over other numbers of axes, by their names: so pickle finds them."""
    found = re.fullmatch(r"(grouped_)?(transposed_)?convolution([1-9]\d*)d", name)
    if found is None:
        raise AttributeError(f"models.convolving has no {name}")
    make = _transposed_convolution if found[2] else _convolution
    return make(int(found[3]), "g" if found[1] else "")
