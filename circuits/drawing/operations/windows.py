"""Drawing rules of convolutions and pooling: ★ in a box, or a trapezoid whose windows end (Figures 26 to 28)."""

from typing import Any

from circuits.diagram import Value, size_text
from circuits.drawing.marks import Span
from circuits.drawing.operations.contraction import letter
from circuits.drawing.operations.reading import LEARNED, Drawn, Reading, on_axes, passing, rule
from circuits.drawing.scene import Link


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
def convolution(reading: Reading) -> Drawn | None:
    """★n on the image and channel wires if sizes are kept; else a trapezoid, whose windows end in a learned map."""
    value, weight, out = reading.tensors[0], reading.value(1, "weight"), reading.box.outputs[0]
    space = int(reading.function_name[-2])
    if weight is None or weight.role not in LEARNED or len(value.sizes) < space + 1 or len(reading.data) != 1:
        return None
    first = len(value.sizes) - space
    image = [(0, axis) for axis in range(first, len(value.sizes))]
    taken = (*image, (0, first - 1))
    batch = passing([((0, axis), (0, axis)) for axis in range(first - 1)])
    kernel = weight.sizes[2:]
    transposed = "transpose" in reading.function_name
    keeps = not transposed and value.sizes[first:] == out.sizes[first:]
    glyph = Link(
        "glyph",
        taken,
        taken,
        "star" if keeps else "transposed" if transposed else "window",
        _star(kernel, reading) if keeps else _stride(reading.get(3, "stride", 1)),
        _window(kernel),
        letter(_superscript(reading.name), reading.value(2, "bias") is not None),
        (((0, first - 1),), ((0, first - 1),)),
    )
    return Drawn((value,), (out,), (*batch, glyph))


def _superscript(name: str) -> str:
    """Return the name of a module if it is as short as those of a figure, such as `Cq`; the usual names say nothing."""
    return name if len(name) <= 2 else ""


def _star(kernel: Any, reading: Reading) -> tuple[Span, ...]:
    """Return ★ and the size of the window, with the number of groups if channels do not meet."""
    groups = reading.get(6, "groups", 1)
    text = size_text(kernel[0]) if len(set(kernel)) == 1 else "×".join([size_text(size) for size in kernel])
    return (Span(f"★ {text}", "upright"), *([Span(f"/{size_text(groups)}", "upright", "sub")] if groups != 1 else []))


def _window(kernel: Any) -> tuple[Span, ...]:
    """Return the label of a window: 3² for a square, `3 5` for another."""
    if len(set(kernel)) == 1:
        power = (Span(f"{len(kernel)}", "upright", "sup"),) if len(kernel) > 1 else ()
        return (Span(size_text(kernel[0]), "upright"), *power)
    return (Span("×".join([size_text(size) for size in kernel]), "upright"),)


def _stride(stride: Any) -> tuple[Span, ...]:
    steps = stride if isinstance(stride, list) else [stride]
    text = size_text(steps[0]) if len(set(steps)) == 1 else "×".join([size_text(step) for step in steps])
    return () if text == "1" else (Span(text, "upright"),)


@rule("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d")
def pooling(reading: Reading) -> Drawn | None:
    """A trapezoid on the image, whose windows end in Max or in the mean 𝔼."""
    kernel, space = reading.get(1, "kernel_size"), int(reading.function_name[-2])
    sizes = kernel if isinstance(kernel, list) else [kernel] * space
    stride = reading.get(2, "stride", kernel)
    return _pool(reading, space, _window(sizes), _stride(stride or kernel))


@rule("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d")
def adaptive_pooling(reading: Reading) -> Drawn | None:
    """A trapezoid on the image, whose windows have the sizes that give the size of the result."""
    space = int(reading.function_name[-2])
    value, out = reading.tensors[0], reading.box.outputs[0]
    pairs = list(zip(value.sizes[-space:], out.sizes[-space:], strict=True))
    return _pool(reading, space, _window([before / after if after != 1 else before for before, after in pairs]), ())


def _pool(reading: Reading, space: int, window: tuple[Span, ...], stride: tuple[Span, ...]) -> Drawn | None:
    name = reading.function_name
    ending = (Span("Max" if "max" in name else "𝔼" if "avg" in name else "‖·‖", "upright"),)
    dims = list(range(-space, 0))
    return on_axes(reading, dims, "window", stride, inner=window, closing=ending)


@rule("pad interpolate upsample pixel_shuffle pixel_unshuffle grid_sample")
def on_image(reading: Reading) -> Drawn | None:
    """A box on the axes whose sizes change; the others pass."""
    value, out = reading.tensors[0], reading.box.outputs[0]
    if len(value.sizes) != len(out.sizes) or len(reading.tensors) != 1:
        return None
    return on_axes(reading, _changed(value, out), "box", (Span(reading.function_name, "sans"),))


def _changed(value: Value, out: Value) -> list[int]:
    return [axis for axis, (old, new) in enumerate(zip(value.sizes, out.sizes, strict=True)) if old != new]


__all__ = ["convolution", "pooling"]
