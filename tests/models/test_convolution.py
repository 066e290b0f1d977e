"""`models.parts.convolve` and `models.convolution` compared with plain loops, torch's operators and torch's modules."""

import copy
import itertools
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, SignatureError, Window, definitions, find_circuit, trace
from models.convolution import Convolution, SeparableConvolution, TransposedConvolution
from models.parts.convolve import (
    convolution2d,
    convolution_over,
    grouped_convolution_over,
    grouped_transposed_convolution_over,
    transposed_convolution2d,
    transposed_convolution_over,
)

FORWARD = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MODULES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_MODULES = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])
dimensions = pytest.mark.parametrize("n", [1, 2, 3])

# --- Oracles: one number at a time, without torch's operators ---------------------------------------------------------


def by_loops(
    image: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Return the convolution of one image, channels first: every number of the output is a sum of products."""
    kernel = weight.shape[2:]
    sizes = [
        (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for size, k in zip(image.shape[1:], kernel, strict=True)
    ]
    output = torch.zeros(len(weight), *sizes, dtype=image.dtype)
    for k, c, windows, places in terms(weight, sizes):
        at = source(image, windows, places, stride, padding, dilation)
        if at is not None:
            share = k // (len(weight) // groups) * weight.shape[1]
            output[k, *windows] += image[share + c, *at] * weight[k, c, *places]
    return output


def by_writing(
    image: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int, more: int
) -> Tensor:
    """Return the transposed convolution of one image: each of its numbers times the weight is added to a window."""
    kernel = weight.shape[2:]
    sizes = [
        (size - 1) * stride + dilation * (k - 1) + 1 - 2 * padding + more
        for size, k in zip(image.shape[1:], kernel, strict=True)
    ]
    output = torch.zeros(groups * weight.shape[1], *sizes, dtype=image.dtype)
    for k, c, windows, places in terms(weight, image.shape[1:]):
        at = source(output, windows, places, stride, padding, dilation)
        if at is not None:
            share = k // (len(weight) // groups) * weight.shape[1]
            output[share + c, *at] += image[k, *windows] * weight[k, c, *places]
    return output


def terms(weight: Tensor, counts: Any) -> Iterator[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    ranges = [range(size) for size in (*weight.shape[:2], *counts, *weight.shape[2:])]
    n = len(counts)
    for k, c, *rest in itertools.product(*ranges):
        yield k, c, tuple(rest[:n]), tuple(rest[n:])


def source(image: Tensor, windows: Any, places: Any, stride: int, padding: int, dilation: int) -> Any:
    """Return the position in the image of a position in a window; None if it is in the padding."""
    at = tuple(stride * h + dilation * i - padding for h, i in zip(windows, places, strict=True))
    return at if all(0 <= x < size for x, size in zip(at, image.shape[1:], strict=True)) else None


@st.composite
def cases(draw: st.DrawFn, most: int = 3) -> dict[str, Any]:
    """Options and sizes of a convolution that torch has an operator for; axes may be just as long as a window."""
    n = draw(st.integers(1, most))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(n))  # noqa: E731
    kernel, stride, dilation, padding = each(1, 3), each(1, 3), each(1, 2), each(0, 2)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    space = tuple(max(1, r - 2 * p) + draw(st.integers(0, 3)) for r, p in zip(reach, padding, strict=True))
    groups = draw(st.integers(1, 3))
    c, k = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    lead = draw(st.sampled_from([(), (1,), (2,), (0,), (2, 2)]))
    return {
        "n": n, "kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "space": space,
        "groups": groups, "c": c, "k": k, "lead": lead,
    }  # fmt: skip


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def gradients(output: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of a sum with a different weight for every number."""
    return torch.autograd.grad((output * torch.arange(1, output.numel() + 1).view_as(output).cos()).sum(), wanted)


def lifted(f: Callable[[Tensor], Tensor], image: Tensor, named: int) -> Tensor:
    """Call one of torch's operators under any number of leading axes."""
    if image.ndim <= named + 1:
        return f(image)
    return f(image.flatten(0, -named - 1)).unflatten(0, image.shape[:-named])


def ours(case: dict[str, Any], image: Tensor, weight: Tensor, bias: Tensor, is_transposed: bool, **more: Any) -> Tensor:
    options = {name: case[name] for name in ("stride", "padding", "dilation")}
    n, g = case["n"], case["groups"]
    plain, grouped = (
        (transposed_convolution_over, grouped_transposed_convolution_over)
        if is_transposed
        else (convolution_over, grouped_convolution_over)
    )
    if g == 1:
        return plain(n)(image, weight, bias, **options, **more)
    return grouped(n)(image, weight.unflatten(0, (g, -1)), bias, **options, **more)


# --- The circuits against the oracles ---------------------------------------------------------------------------------


@pytest.mark.every(2)
@both_ways
@given(case=cases())
@settings(max_examples=100)
def test_identity_7_a_convolution_is_torchs(way: Any, case: dict[str, Any]) -> None:
    n, g = case["n"], case["groups"]
    image = randn(*case["lead"], g * case["c"], *case["space"])
    weight, bias = randn(g * case["k"], case["c"], *case["kernel"]), randn(g * case["k"])
    with way():
        output = ours(case, image, weight, bias, is_transposed=False)
    expected = lifted(
        lambda image: FORWARD[n](image, weight, bias, case["stride"], case["padding"], case["dilation"], g),
        image,
        n + 1,
    )
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients(output, [image, weight, bias]), gradients(expected, [image, weight, bias]))


@both_ways
@given(case=cases(), data=st.data())
@settings(max_examples=100)
def test_a_transposed_convolution_is_torchs(way: Any, case: dict[str, Any], data: st.DataObject) -> None:
    n, g = case["n"], case["groups"]
    more = tuple(data.draw(st.integers(0, stride - 1)) for stride in case["stride"])
    windows = Window.over(
        "a b c -> x y z i j k" if n == 3 else "a b -> x y i j" if n == 2 else "a -> x i",
        case["kernel"], stride=case["stride"], dilation=case["dilation"], padding=case["padding"],
    )  # fmt: skip
    space = tuple(window.count(size) for window, size in zip(windows, case["space"], strict=True))
    image = randn(*case["lead"], g * case["k"], *space)
    weight, bias = randn(g * case["k"], case["c"], *case["kernel"]), randn(g * case["c"])
    if any(window.least(count) + extra < 1 for window, count, extra in zip(windows, space, more, strict=True)):
        # For an empty batch torch's operator returns an empty output of any size.
        if 0 in case["lead"] and way is nullcontext:
            return
        with way(), pytest.raises(ShapeError, match="removes all positions"):
            ours(case, image, weight, bias, is_transposed=True, output_padding=more)
        return
    with way():
        output = ours(case, image, weight, bias, is_transposed=True, output_padding=more)
    expected = lifted(
        lambda image: TRANSPOSED[n](
            image, weight, bias, case["stride"], case["padding"], more, g, case["dilation"]
        ),
        image,
        n + 1,
    )  # fmt: skip
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients(output, [image, weight, bias]), gradients(expected, [image, weight, bias]))


WHOLE = itertools.product([1, 2, 3, 4], [1, 2, 3], [0, 1, 2], [1, 2])
GRID = [case if sum(case) % 3 == 0 else pytest.param(*case, marks=pytest.mark.slow) for case in WHOLE]


@both_ways
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), GRID)
def test_one_axis_equals_the_loop(way: Any, kernel: int, stride: int, padding: int, dilation: int) -> None:
    """Odd and even kernel sizes, in groups too, and every output padding of the transpose."""
    image, size = torch.randn(4, 9, dtype=torch.float64), 9
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    weight = torch.randn(6, 2, kernel, dtype=torch.float64)
    with way():
        output = grouped_convolution_over(1)(image, weight.unflatten(0, (2, 3)), **options)
        torch.testing.assert_close(output, by_loops(image, weight, **options, groups=2))
        for more in range(stride):
            back = grouped_transposed_convolution_over(1)(
                output, weight.unflatten(0, (2, 3)), **options, output_padding=more
            )
            torch.testing.assert_close(back, by_writing(output, weight, **options, groups=2, more=more))
            assert back.shape[-1] in range(size - stride + 1, size + stride)


@both_ways
def test_two_axes_equal_the_loop(way: Any) -> None:
    image, weight = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(3, 2, 2, 3, dtype=torch.float64)
    with way():
        output = convolution2d(image, weight, stride=2, padding=1, dilation=2)
        torch.testing.assert_close(output, by_loops(image, weight, 2, 1, 2))
        back = transposed_convolution2d(output, weight, stride=2, padding=1, dilation=2, output_padding=1)
        torch.testing.assert_close(back, by_writing(output, weight, 2, 1, 2, 1, 1))


@both_ways
@given(case=cases())
@settings(max_examples=60)
def test_a_transposed_convolution_is_the_transpose(way: Any, case: dict[str, Any]) -> None:
    """<convolve(x), y> = <x, transposed(y)>, with the output padding that gives exactly the size of x."""
    n, g = case["n"], case["groups"]
    names = {1: "a -> x i", 2: "a b -> x y i j", 3: "a b c -> x y z i j k"}[n]
    options = {name: case[name] for name in ("stride", "dilation", "padding")}
    windows = Window.over(names, case["kernel"], **options)
    more = tuple(window.output_padding(size) for window, size in zip(windows, case["space"], strict=True))
    x = torch.randn(2, g * case["c"], *case["space"], dtype=torch.float64)
    weight = torch.randn(g * case["k"], case["c"], *case["kernel"], dtype=torch.float64)
    none: Any = None
    with way():
        there = ours(case, x, weight, none, is_transposed=False)
        y = torch.randn_like(there)
        back = ours(case, y, weight, none, is_transposed=True, output_padding=more)
    assert back.shape == x.shape
    torch.testing.assert_close((there * y).sum(), (x * back).sum())


@both_ways
@dimensions
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, ((2, 0),)])
def test_every_padding_and_its_transpose(way: Any, n: int, mode: Any, padding: Any) -> None:
    """Compared with F.pad; the transpose, with the gradient of F.pad."""
    padding = padding * n if isinstance(padding, tuple) else padding
    border = [2, 0] * n if isinstance(padding, tuple) else [1, 1] * n
    x, weight = randn(2, 3, *range(4, 4 + n)), randn(4, 3, *[2] * n)

    def by_torch() -> Tensor:
        return FORWARD[n](F.pad(x, border, "constant" if mode == "zeros" else mode), weight, stride=2)

    expected = by_torch()
    with way():
        output = convolution_over(n)(x, weight, stride=2, padding=padding, mode=mode)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(gradients(output, [x, weight]), gradients(expected, [x, weight]))
        y = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(by_torch(), x, y)
        windows = Window.over(
            {1: "a -> x i", 2: "a b -> x y i j", 3: "a b c -> x y z i j k"}[n], 2, stride=2, padding=padding
        )
        more = [window.output_padding(size) for window, size in zip(windows, x.shape[2:], strict=True)]
        back = transposed_convolution_over(n)(
            y, weight, torch.ones(3, dtype=y.dtype), stride=2, padding=padding, output_padding=more, mode=mode
        )
    torch.testing.assert_close(back, gradient + 1)


@given(case=cases(most=2), shift=st.integers(1, 3))
@settings(max_examples=60)
def test_identity_7_shifting_the_image_shifts_the_output(case: dict[str, Any], shift: int) -> None:
    """A shift of the input by the stride shifts the output by 1, exactly if the image is circular and divisible."""
    n, g = case["n"], case["groups"]
    space = tuple(
        stride * max(3, -(-(d * (k - 1) + 1) // stride))
        for stride, k, d in zip(case["stride"], case["kernel"], case["dilation"], strict=True)
    )
    x = torch.randn(g * case["c"], *space, dtype=torch.float64)
    weight = torch.randn(g * case["k"], case["c"], *case["kernel"], dtype=torch.float64)
    reach = [d * (k - 1) for k, d in zip(case["kernel"], case["dilation"], strict=True)]
    whole = {**case, "padding": tuple((0, r) for r in reach)}
    none: Any = None
    there = ours(whole, x, weight, none, is_transposed=False, mode="circular")
    axes = tuple(range(1, n + 1))
    turned = x.roll([shift * stride for stride in case["stride"]], axes)
    assert there.shape[1:] == tuple(size // stride for size, stride in zip(space, case["stride"], strict=True))
    torch.testing.assert_close(
        ours(whole, turned, weight, none, is_transposed=False, mode="circular"), there.roll([shift] * n, axes)
    )


def test_in_four_dimensions_the_definition_runs() -> None:
    """torch has no operator: the reference is a product of four one-dimensional convolutions."""
    x = torch.randn(2, 3, 4, 3, 5, dtype=torch.float64)
    kernels = [torch.randn(size, dtype=torch.float64) for size in (2, 3, 1, 2)]
    weight = torch.einsum("a,b,c,d->abcd", *kernels)[None, None].repeat(1, 2, 1, 1, 1, 1)
    output = convolution_over(4)(x, weight, stride=(1, 2, 1, 2), padding=1)
    expected = x.sum(0)
    for axis, (kernel, stride) in enumerate(zip(kernels, (1, 2, 1, 2), strict=True)):
        moved = expected.movedim(axis, -1)
        slid = F.conv1d(moved.reshape(-1, 1, moved.shape[-1]), kernel[None, None], stride=stride, padding=1)
        expected = slid.reshape(*moved.shape[:-1], -1).movedim(-1, axis)
    torch.testing.assert_close(output, expected[None])
    y = torch.randn_like(output)
    back = transposed_convolution_over(4)(y, weight, stride=(1, 2, 1, 2), padding=1, output_padding=(0, 1, 0, 1))
    torch.testing.assert_close((output * y).sum(), (x * back).sum())


@both_ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_other_precisions(way: Any, dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(2, 3, 8, 7), torch.randn(4, 3, 3, 3), torch.randn(4)
    with way():
        output = convolution2d(x.to(dtype), weight.to(dtype), bias.to(dtype), stride=2, padding=1)
    assert output.dtype == dtype
    # bfloat16 has 8 bits: the rounding of each of 27 products and of their sum may differ.
    loose: Any = {"rtol": 0.05, "atol": 0.1} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(output.float(), F.conv2d(x, weight, bias, 2, 1), **loose)


# --- Derivatives and transforms ---------------------------------------------------------------------------------------


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("is_transposed", [False, True])
def test_first_and_second_derivatives_are_right(way: Any, is_transposed: bool) -> None:
    case = {"n": 2, "groups": 2, "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    x, weight, bias = randn(4, 4, 5), randn(4, 2, 2, 2), randn(4)
    f = lambda *args: ours(case, *args, is_transposed=is_transposed)  # noqa: E731
    with way():
        assert torch.autograd.gradcheck(f, (x, weight, bias))
        assert torch.autograd.gradgradcheck(f, (x, weight, bias))


@both_ways
@pytest.mark.parametrize("is_transposed", [False, True])
def test_vmap_and_jvp(way: Any, is_transposed: bool) -> None:
    f = transposed_convolution2d if is_transposed else convolution2d
    x, weight = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 4, 2, 3)
    with way():
        output = torch.vmap(lambda x, w: f(x, w, stride=2, padding=1))(x, weight)
        expected = torch.stack([f(*each, stride=2, padding=1) for each in zip(x, weight, strict=True)])
        torch.testing.assert_close(output, expected)
        tangent = torch.randn_like(x)
        forward: Any = torch.func.jvp(lambda x: f(x, weight[0], stride=2, padding=1), (x,), (tangent,))
        torch.testing.assert_close(forward[1], f(tangent, weight[0], stride=2, padding=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "dynamic"),
    [
        (nullcontext, True),
        pytest.param(nullcontext, False, marks=pytest.mark.slow),
        pytest.param(definitions, False, marks=pytest.mark.slow),
        pytest.param(definitions, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_they_compile_into_one_graph(way: Any, is_transposed: bool, dynamic: bool) -> None:
    torch._dynamo.reset()
    f = transposed_convolution2d if is_transposed else convolution2d
    x, weight, bias = torch.randn(2, 4, 6, 7), torch.randn(4, 4, 3, 2), torch.randn(4)
    inputs = [each.requires_grad_() for each in (x, weight, bias)]
    run = lambda *args: f(*args, stride=(2, 1), padding=1)  # noqa: E731
    with way():
        compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        output, expected = compiled(*inputs), run(*inputs)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients(output, inputs), gradients(expected, inputs))


# --- Tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_is_a_window_and_a_linear_map(golden: Callable[[str, str], None]) -> None:
    layers = [
        Convolution("c h w -> k h' w'", c=3, k=16, kernel=3, stride=2, padding=1),
        Convolution("c h w -> k h w", c=4, k=6, kernel=3, padding="same", groups=2, bias=False),
        TransposedConvolution("k h' w' -> c h w", k=16, c=3, kernel=3, stride=2, padding=1, output_padding=1),
    ]
    golden("models/convolution_tables.txt", "\n".join(f"{trace(layer)}\n" for layer in layers))


def test_a_diagram_of_free_sizes_runs_at_any() -> None:
    layer = Convolution("c h w -> k h' w'", c=3, k=4, kernel=3, stride=2, padding=1, dilation=2, dtype=torch.float64)
    diagram = trace(layer)
    for h, w in ((5, 9), (8, 6), (17, 4)):
        image = torch.randn(3, h, w, dtype=torch.float64)
        torch.testing.assert_close(diagram(image), layer(image))


# --- What is refused --------------------------------------------------------------------------------------------------

x, w = torch.randn(3, 8, 8), torch.randn(4, 3, 3, 3)
BAD: dict[str, Callable[[], Any]] = {
    "channels": lambda: convolution2d(torch.randn(5, 8, 8), w),
    "kernel too large": lambda: convolution2d(x, torch.randn(4, 3, 3, 11), padding=1),
    "kernel too large, transposed": lambda: transposed_convolution2d(torch.randn(4, 1, 1), w, padding=2),
    "output padding": lambda: transposed_convolution2d(torch.randn(4, 4, 4), w, stride=2, output_padding=2),
    "output padding, stride 1": lambda: transposed_convolution2d(torch.randn(4, 4, 4), w, output_padding=(0, 1)),
    "output padding, negative": lambda: transposed_convolution2d(torch.randn(4, 4, 4), w, stride=2, output_padding=-1),
    "strides": lambda: convolution2d(x, w, stride=(1, 2, 3)),
    "stride of 0": lambda: convolution2d(x, w, stride=0),
    "paddings": lambda: convolution2d(x, w, padding=((1, 2),)),
    "mirror": lambda: convolution2d(x, w, padding=8, mode="reflect"),
    "mode": lambda: convolution2d(x, w, padding=1, mode="wrap"),
    "groups": lambda: Convolution("c h -> k h'", c=4, k=6, kernel=3, groups=4),
    "no space": lambda: Convolution("c -> k", c=4, k=6, kernel=3),
    "space lost": lambda: Convolution("c h w -> k h'", c=4, k=6, kernel=3),
    "sizes": lambda: Convolution("c h w -> k h' w'", c=4, kernel=3),
    "kernels": lambda: Convolution("c h w -> k h' w'", c=4, k=6, kernel=(3, 3, 3)),
    "not kept": lambda: Convolution("c h w -> k h w", c=3, k=6, kernel=3)(x),
    "another image": lambda: Convolution("c h w -> k h' w'", c=5, k=6, kernel=3)(x),
    "a size it cannot have": lambda: TransposedConvolution("k a -> c b", k=4, c=3, kernel=3, stride=2)(
        torch.randn(4, 5), size=(13,)
    ),
}


@both_ways
def test_messages_of_invalid_calls(way: Any, golden: Callable[[str, str], None]) -> None:
    """With the same messages, whether the kernel or the definition runs."""
    messages = []
    for name, call in BAD.items():
        with way(), pytest.raises(CircuitError) as caught:
            call()
        text = "\n".join(line for line in str(caught.value).splitlines() if "declared at" not in line)
        messages.append(f"# {name}\n{type(caught.value).__name__}: {text}\n")
    golden("models/convolution_misfits.txt", "\n".join(messages))


# --- Modules ----------------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": 2, "dilation": 2},
    {"groups": 2, "bias": False},
    {"groups": 4, "stride": 3, "padding": 1},
    {"padding": "same"},
    {"padding": "same", "dilation": 3, "padding_mode": "reflect"},
    {"padding": "valid", "stride": 2},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "replicate", "stride": 2},
]


@pytest.mark.every(3)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@both_ways
@dimensions
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_torch_equals_torchs_module(
    way: Any, n: int, options: dict[str, Any], kernel: int, dtype: torch.dtype
) -> None:
    """Values, and gradients of the image and every parameter; for one image and for several."""
    theirs = MODULES[n](4, 8, kernel, **options, dtype=dtype)
    mine = Convolution.from_torch(theirs)
    for lead in ((), (2,)):
        image = randn(*lead, 4, *range(7, 7 + n), dtype=dtype)
        with way():
            output = mine(image)
        expected = theirs(image)
        torch.testing.assert_close(output, expected)
        found = gradients(output, [image, *mine.parameters()])
        wanted = gradients(expected, [image, *theirs.parameters()])
        # Sums over a batch of images are in another order, with a larger rounding error in float32.
        loose: Any = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
        torch.testing.assert_close(found, wanted, **loose)


@both_ways
@dimensions
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": 3, "output_padding": 2, "dilation": 2, "groups": 2},
        {"groups": 4, "padding": 1, "bias": False},
    ],
    ids=str,
)
def test_transposed_from_torch_equals_torchs_module(way: Any, n: int, options: dict[str, Any]) -> None:
    theirs = TRANSPOSED_MODULES[n](8, 4, 3, **options, dtype=torch.float64)
    mine = TransposedConvolution.from_torch(theirs)
    image = randn(2, 8, *range(3, 3 + n))
    size = [window.least(count) for window, count in zip(mine.windows, image.shape[2:], strict=True)]
    with way():
        output, chosen = mine(image), mine(image, size=size)
    expected = theirs(image)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(chosen, theirs(image, output_size=size))
    parameters = gradients(output, [image, *mine.parameters()])
    torch.testing.assert_close(parameters, gradients(expected, [image, *theirs.parameters()]))


def test_transposed_from_torch_refuses_an_output_padding_of_the_stride_or_more() -> None:
    theirs = nn.ConvTranspose1d(2, 3, 3, stride=1, dilation=2, output_padding=1)
    with pytest.raises(CircuitError, match="output_padding 1 is not supported at stride 1"):
        TransposedConvolution.from_torch(theirs)


def test_from_torch_copies_and_state_dicts_are_torchs() -> None:
    theirs = nn.Conv2d(4, 6, 3, groups=2).eval()
    mine = Convolution.from_torch(theirs)
    assert not mine.training
    assert mine.weight.data_ptr() != theirs.weight.data_ptr()
    theirs.load_state_dict(mine.state_dict())
    assert repr(mine) == "Convolution(\"c h w -> k h' w'\", c=4, k=6, kernel=(3, 3), groups=2)"


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_separable_is_depthwise_and_pointwise_of_torch(mode: Any) -> None:
    mine = SeparableConvolution("c h w -> k h' w'", c=4, k=6, kernel=3, stride=2, padding=1, mode=mode).double()
    depthwise = nn.Conv2d(4, 4, 3, 2, 1, groups=4, padding_mode=mode).double()
    pointwise = nn.Conv2d(4, 6, 1).double()
    depthwise.load_state_dict(mine.depthwise.state_dict())
    pointwise.load_state_dict(mine.pointwise.state_dict())
    image = torch.randn(2, 4, 8, 7, dtype=torch.float64)
    torch.testing.assert_close(mine(image), pointwise(depthwise(image)))
    # As one convolution, whose weight for each pair of channels is a product.
    whole = torch.einsum("cij,kc->kcij", mine.depthwise.weight[:, 0], mine.pointwise.weight[:, :, 0, 0])
    padded = F.pad(image, (1, 1, 1, 1), "constant" if mode == "zeros" else mode)
    assert mine.depthwise.bias is not None
    assert mine.pointwise.bias is not None
    bias = mine.pointwise.weight[:, :, 0, 0] @ mine.depthwise.bias + mine.pointwise.bias
    torch.testing.assert_close(mine(image), F.conv2d(padded, whole, bias, 2))


@given(c=st.integers(1, 3), k=st.integers(1, 3), g=st.integers(1, 3), size=st.integers(1, 4), bias=st.booleans())
def test_parameters_are_as_many_as_the_formula_says(c: int, k: int, g: int, size: int, bias: bool) -> None:
    count = lambda module: sum(each.numel() for each in module.parameters())  # noqa: E731
    c, k = g * c, g * k
    made: Any = {"c": c, "k": k, "kernel": (size, 3), "bias": bias, "device": "meta"}
    assert count(Convolution("c h w -> k h' w'", groups=g, **made)) == c * k * size * 3 // g + k * bias
    assert count(TransposedConvolution("k h' w' -> c h w", groups=g, **made)) == c * k * size * 3 // g + c * bias
    assert count(SeparableConvolution("c h w -> k h' w'", **made)) == c * size * 3 + c * k + (c + k) * bias


@pytest.mark.parametrize("kind", [Convolution, TransposedConvolution])
def test_weights_are_initialized_uniform_within_torchs_bounds(kind: Any) -> None:
    mine = kind("a h w -> b h' w'", a=24, b=32, kernel=5, groups=2)
    theirs = (nn.Conv2d if kind is Convolution else nn.ConvTranspose2d)(24, 32, 5, groups=2)
    bound = theirs.weight[0].numel() ** -0.5
    for name, parameter in mine.state_dict().items():
        other = theirs.state_dict()[name]
        assert parameter.shape == other.shape
        for begun in (parameter, other):
            assert 0.85 * bound < begun.abs().max().item() <= bound
        assert math.isclose(parameter.var().item() * 3, bound**2, rel_tol=0.6 if name == "bias" else 0.05)


@pytest.mark.slow
def test_a_module_copies_pickles_and_compiles() -> None:
    mine = SeparableConvolution("c h w -> k h w", c=3, k=5, kernel=3, padding="same")
    image = torch.randn(2, 3, 6, 7)
    expected = mine(image)
    for other in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        torch.testing.assert_close(other(image), expected)
        assert find_circuit(other) is not None
    torch._dynamo.reset()
    compiled: Any = torch.compile(mine, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), expected)
    exported = torch.export.export(
        mine, (image,), dynamic_shapes=({0: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    )
    other = torch.randn(4, 3, 6, 9)
    torch.testing.assert_close(exported.module()(other), mine(other))


def test_a_text_that_keeps_sizes_is_checked() -> None:
    halves = Convolution("c h w -> k h/2 w/2", c=3, k=4, kernel=2, stride=2)
    assert halves(torch.randn(3, 6, 8)).shape == (4, 3, 4)
    with pytest.raises(ShapeError, match="h/2 is not a whole number"):
        halves(torch.randn(3, 7, 8))
    with pytest.raises(SignatureError):
        Convolution("c h w > k h w", c=3, k=4, kernel=2)
