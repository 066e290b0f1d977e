"""`circuits.windows`: windows as data, their sizes, and `unfold` and `fold` compared with loops."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits import CircuitError, ShapeError, SignatureError, Window, circuit, einsum, fold, trace, transposed, unfold

MODES = ("zeros", "reflect", "replicate", "circular")

# --- Oracles: plain Python, one number at a time ----------------------------------------------------------------------


def source(place: int, size: int, mode: str) -> int | None:
    """Return the position on an axis that `place`, which may be in the padding, is a copy of; None for a zero."""
    if mode == "circular":
        return place % size
    while not 0 <= place < size:
        if mode == "zeros":
            return None
        if mode == "replicate":
            place = 0 if place < 0 else size - 1
        else:
            place = -place if place < 0 else 2 * (size - 1) - place
    return place


def read(window: Window, size: int) -> list[list[int | None]]:
    """Return the position on the axis of each position of each window; the last window ends within the padding."""
    rows = []
    start = -window.before
    while start + window.dilation * (window.size - 1) < size + window.after:
        places = [start + window.dilation * i for i in range(window.size)]
        rows.append([source(place, size, window.mode) for place in places])
        start += window.stride
    return rows


def unfolded(values: list[float], window: Window) -> list[list[float]]:
    return [[0.0 if at is None else values[at] for at in row] for row in read(window, len(values))]


def folded(values: list[list[float]], window: Window, size: int) -> list[float]:
    total = [0.0] * size
    for row, places in zip(values, read(window, size), strict=True):
        for value, at in zip(row, places, strict=True):
            if at is not None:
                total[at] += value
    return total


@st.composite
def windows(draw: st.DrawFn, axis: str = "h", place: str = "i") -> Window:
    size, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return Window(axis, f"{axis}'", place, size, stride, dilation, before, after, draw(st.sampled_from(MODES)))


@st.composite
def seen(draw: st.DrawFn, axis: str = "h", place: str = "i") -> tuple[Window, int]:
    """A window, and the size of an axis that is long enough for it and for its padding."""
    window = draw(windows(axis, place))
    least = max(1, window.reach - window.before - window.after)
    if window.mode != "zeros":
        least = max(least, window.before + 1, window.after + 1)
    return window, least + draw(st.integers(0, 6))


# --- Text -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(windows())
def test_a_window_is_printed_as_the_text_that_parses_to_it(window: Window) -> None:
    assert Window.parse(str(window)) == window
    assert eval(repr(window)) == window


@pytest.mark.smoke
def test_the_map_of_the_text_is_the_map() -> None:
    window = Window.parse("h -> h' i<5: 3*h' + 2*i - 4 < h + 7, circular")
    assert window == Window("h", "h'", "i", 5, 3, 2, 4, 7, "circular")
    assert window.map == "3*h' + 2*i - 4"
    assert Window.parse("t -> u j<4: u*3 - 4 + j*2 < 7 + t") == Window("t", "u", "j", 4, 3, 2, 4, 7)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("h -> h' i: s*h' + d*i - p", {"i": 3, "s": 2, "d": 5, "p": 1}),
        ("h -> h' i<k: s*h' + d*i - p < h + p", {"k": 3, "s": 2, "d": 5, "p": 1}),
        ("h->h' i<3:2*h'+5*i-1", {}),
        ("h -> h' i<n+1: n*h' + 5*i - 1", {"n": 2}),
    ],
)
def test_letters_are_replaced_by_numbers(text: str, numbers: dict[str, int]) -> None:
    assert Window.parse(text, **numbers) == Window("h", "h'", "i", 3, 2, 5, 1, 1)


TEXTS: dict[str, tuple[str, dict[str, int]]] = {
    "no_map": ("h -> h' i", {"i": 3}),
    "two_axes": ("h w -> h' w' i j: h' + i", {"i": 3}),
    "no_place": ("h -> h': h'", {}),
    "same_name": ("h -> h i<3: h + i", {}),
    "no_size": ("h -> h' i: h' + i", {}),
    "no_number": ("h -> h' i<3: s*h' + i - p", {"s": 2}),
    "no_letter": ("h -> h' i<3: h' + i", {"s": 2}),
    "product": ("h -> h' i<3: h'*i", {}),
    "square": ("h -> h' i<3: h'*h' + i", {}),
    "half": ("h -> h' i<3: h'/2 + i", {}),
    "another_axis": ("h -> h' i<3: w + i", {}),
    "end": ("h -> h' i<3: h' + i < 2*h", {}),
    "two_sums": ("h -> h' i<3: h' i", {}),
    "empty": ("", {}),
}


def test_parsing_takes_linear_time_in_spaces() -> None:
    """Every part may have spaces on both sides; texts that do not match took minutes."""
    s = " " * 3000
    texts = [s, f"a{s}<{s}b{s}:{s}c{s}<{s}d{s},", f"{s}:{s}<{s},{s}!", f"h -> h' i<3: h' + i,{s}reflect{s}!"]
    began = time.monotonic()
    for text in texts:
        with pytest.raises(SignatureError):
            Window.parse(text)
    assert Window.parse(f"{s}h -> h' i{s}<{s}3{s}:{s}h' + i{s}<{s}h + 1{s},{s}reflect{s}").mode == "reflect"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["h -> h' i<  : h' + i", "h -> h' i<3: h' + i <  ", "h -> h' i<3:  , reflect"])
def test_a_part_of_spaces_is_not_a_missing_part(text: str) -> None:
    with pytest.raises(SignatureError, match="expected one expression, not 0"):
        Window.parse(text)


def test_messages_of_texts_that_cannot_be_parsed(golden: Callable[[str, str], None]) -> None:
    messages = []
    for name, (text, numbers) in TEXTS.items():
        with pytest.raises(SignatureError) as caught:
            Window.parse(text, **numbers)
        messages.append(f"# {name}\n{caught.value}\n")
    golden("windows/texts.txt", "\n".join(messages))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"size": 0}, "the size is 0; it may be 1 or more"),
        ({"size": 3, "stride": 0}, "the stride is 0; it may be 1 or more"),
        ({"size": 3, "dilation": -1}, "the dilation is -1; it may be 1 or more"),
        ({"size": 3, "before": -1}, "the padding before is -1; it may be 0 or more"),
        ({"size": 3, "after": -2}, "the padding after is -2; it may be 0 or more"),
        ({"size": 3, "mode": "wrap"}, "unknown mode 'wrap'; expected one of zeros, reflect, replicate, circular"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=f"^Window: {message}$"):
        Window("h", "h'", "i", **numbers)


def test_numbers_for_all_axes_or_one_by_one() -> None:
    found = Window.over("h w -> h' w' i j", (3, 5), stride=2, dilation=(1, 2), padding=(1, (0, 2)), mode="reflect")
    assert found == (
        Window("h", "h'", "i", 3, 2, 1, 1, 1, "reflect"),
        Window("w", "w'", "j", 5, 2, 2, 0, 2, "reflect"),
    )
    with pytest.raises(CircuitError, match=r"strides: expected one number, or a sequence of 2.* got a sequence of 3"):
        Window.over("h w -> h' w' i j", 3, stride=(1, 2, 3))
    with pytest.raises(CircuitError, match=r"padding: expected one number, or a sequence of 2.* got a sequence of 1"):
        Window.over("h w -> h' w' i j", 3, padding=((1, 2),))
    with pytest.raises(SignatureError, match="all with different names"):
        Window.over("h w -> h' w' i", 3)


# --- Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(seen())
def test_the_count_is_that_of_the_loop(case: tuple[Window, int]) -> None:
    window, size = case
    assert window.count(size) == len(read(window, size))


@pytest.mark.slow
@given(windows(), st.integers(1, 9))
def test_the_sizes_with_a_count_are_all_of_them(window: Window, count: int) -> None:
    plain = Window("h", "h'", "i", window.size, window.stride, window.dilation, window.before, window.after)
    everywhere = [size for size in range(80) if len(read(plain, size)) == count]
    if not everywhere:
        with pytest.raises(ShapeError, match=f"no size of h gives {count} windows"):
            plain.sizes(count)
        return
    assert list(plain.sizes(count)) == everywhere
    assert max(plain.least(count), 0) == everywhere[0]
    for size in everywhere:
        assert plain.least(count) + plain.output_padding(size) == size


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@given(windows(), st.integers(1, 30))
def test_same_keeps_a_size_or_divides_it_rounded_up(window: Window, size: int) -> None:
    same = Window("h", "h'", "i", window.size, window.stride, window.dilation).same()
    assert same.count(size) == math.ceil(size / window.stride)
    assert same.after - same.before in (0, 1)
    convolve = torch.nn.Conv1d(1, 1, window.size, dilation=window.dilation, padding="same", bias=False)
    x = torch.randn(1, size)
    padded = F.pad(x, (same.before, same.after))
    torch.testing.assert_close(convolve(x), F.conv1d(padded, convolve.weight, dilation=window.dilation))


@pytest.mark.slow
@given(windows(), st.integers(1, 30))
def test_full_has_every_window_that_overlaps_the_axis(window: Window, size: int) -> None:
    full = Window("h", "h'", "i", window.size, 1, window.dilation).full()
    rows = read(full, size)
    assert full.count(size) == len(rows) == size + full.reach - 1
    assert rows[0][-1] == 0
    assert rows[-1][0] == size - 1


@pytest.mark.slow
@given(windows(), st.integers(1, 30))
def test_covering_counts_as_torchs_pools_rounded_up(window: Window, size: int) -> None:
    pad = min(window.before, window.size // 2)
    plain = Window("h", "h'", "i", window.size, window.stride, window.dilation, pad, pad)
    if size + 2 * pad < plain.reach:
        with pytest.raises(ShapeError):
            plain.covering(size)
        return
    pooled = F.max_pool1d(torch.randn(1, size), window.size, window.stride, pad, window.dilation, ceil_mode=True)
    covering = plain.covering(size)
    assert covering.count(size) == pooled.shape[-1]
    assert covering.after >= plain.after


def test_an_axis_too_short_is_refused_with_the_smallest_size() -> None:
    window = Window.parse("h -> h' i<3: 2*h' + 2*i - 1")
    with pytest.raises(ShapeError) as caught:
        window.count(2)
    message = "h is 2, padded to 4; a window of size 3 and dilation 2 spans 5 positions: h may be 3 or more"
    assert str(caught.value) == message
    assert window.count(3) == 1


@pytest.mark.parametrize(("mode", "least"), [("reflect", 4), ("replicate", 1), ("circular", 3)])
def test_an_axis_too_short_for_its_padding_is_refused(mode: Any, least: int) -> None:
    window = Window("h", "h'", "i", 1, before=3, mode=mode)
    assert window.count(least) == least + 3
    with pytest.raises(ShapeError, match=f"too short for {mode} padding of 3: it may be {least} or more"):
        window.count(least - 1)


# --- Unfold and fold --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(seen())
def test_unfold_is_the_loop(case: tuple[Window, int]) -> None:
    window, size = case
    x = torch.randn(size, dtype=torch.float64)
    expected = torch.tensor(unfolded(x.tolist(), window), dtype=torch.float64)
    torch.testing.assert_close(unfold(x, "h -> h' i", window), expected, rtol=0, atol=0)


@pytest.mark.slow
@given(seen())
def test_fold_is_the_loop(case: tuple[Window, int]) -> None:
    window, size = case
    y = torch.randn(window.count(size), window.size, dtype=torch.float64)
    expected = torch.tensor(folded(y.tolist(), window, size), dtype=torch.float64)
    torch.testing.assert_close(fold(y, "h' i -> h", window, h=size), expected)


@pytest.mark.slow
@given(seen("h", "i"), seen("w", "j"))
def test_identity_8_window_and_fold_are_transposes(one: tuple[Window, int], other: tuple[Window, int]) -> None:
    """<unfold(x), y> = <x, fold(y)> over two axes at once; a pattern transposed twice is itself."""
    (rows, h), (columns, w) = one, other
    x = torch.randn(2, h, w, dtype=torch.float64)
    look = "c h w -> j h' c w' i"
    seen = unfold(x, look, rows, columns)
    y = torch.randn_like(seen)
    back = fold(y, transposed(look), rows, columns, h=h, w=w)
    torch.testing.assert_close(einsum(seen, y, "j h c w i, j h c w i ->"), einsum(x, back, "c h w, c h w ->"))
    assert transposed(transposed(look)) == look


@pytest.mark.slow
@given(seen())
def test_identity_8_the_matrix_of_one_is_the_others_transposed(case: tuple[Window, int]) -> None:
    window, size = case
    eye = torch.eye(size, dtype=torch.float64)
    matrix = unfold(eye, "n h -> h' i n", window).flatten(0, 1)
    other = torch.eye(len(matrix), dtype=torch.float64).unflatten(1, (-1, window.size))
    turned = fold(other, "n h' i -> h n", window, h=size)
    torch.testing.assert_close(turned, matrix.T)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_one_is_the_other(mode: Any) -> None:
    window = Window("h", "h'", "i", 3, 2, 2, 3, 1, mode)
    x = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    seen = unfold(x, "c h -> c i h'", window)
    y = torch.randn_like(seen, requires_grad=True)
    (gradient,) = torch.autograd.grad(seen, x, y, create_graph=True)
    torch.testing.assert_close(gradient, fold(y, "c i h' -> c h", window, h=9))
    z = torch.randn_like(gradient)
    (again,) = torch.autograd.grad(gradient, y, z)
    torch.testing.assert_close(again, unfold(z, "c h -> c i h'", window))


@pytest.mark.every(8)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", [unfold, fold])
def test_derivatives_of_both_are_right(mode: Any, verb: Any) -> None:
    look = "c h w -> c h' w' i j"
    found = Window.over("h w -> h' w' i j", (2, 3), stride=(2, 1), dilation=(2, 1), padding=(1, (2, 0)), mode=mode)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    x = x if verb is unfold else torch.randn_like(unfold(x, look, *found))
    pattern = look if verb is unfold else transposed(look)
    f = lambda x: verb(x, pattern, *found)  # noqa: E731
    assert torch.autograd.gradcheck(f, x.requires_grad_())
    assert torch.autograd.gradgradcheck(f, x)


@pytest.mark.parametrize("mode", MODES[1:])
def test_padding_is_torchs(mode: str) -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    found = Window.over("h w -> h' w' i j", 1, padding=((2, 1), (0, 3)), mode=mode)  # type: ignore[arg-type]
    ours = unfold(x, "b c h w -> b c h' w' i j", *found)[..., 0, 0]
    theirs = F.pad(x, (0, 3, 2, 1), mode)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    y = torch.randn_like(ours)
    (expected,) = torch.autograd.grad(theirs, x, y)
    torch.testing.assert_close(fold(y[..., None, None], "b c h' w' i j -> b c h w", *found), expected)


@pytest.mark.parametrize("kernel", [(2, 3), (1, 4)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
def test_unfold_and_fold_equal_torchs(kernel: Any, stride: Any, dilation: Any, padding: Any) -> None:
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    found = Window.over("h w -> h' w' i j", kernel, stride=stride, dilation=dilation, padding=padding)
    seen = unfold(x, "b c h w -> b c i j h' w'", *found)
    columns = F.unfold(x, kernel, dilation, padding, stride)
    torch.testing.assert_close(seen.reshape(columns.shape), columns)
    again = F.fold(columns, (9, 10), kernel, dilation, padding, stride)
    torch.testing.assert_close(fold(seen, "b c i j h' w' -> b c h w", *found, h=9, w=10), again)


def test_without_padding_nothing_is_copied() -> None:
    x = torch.randn(2, 12, 12)
    rows, columns = Window.over("h w -> h' w' i j", 3, stride=2, dilation=2)
    seen = unfold(x, "c h w -> i j c h' w'", rows, columns)
    assert seen.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert seen.shape == (3, 3, 2, 4, 4)
    flipped = unfold(x.mT, "c h w -> c h' w' i j", rows, columns)
    assert flipped.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16, torch.complex64, torch.float32])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.arange(6).to(dtype)
    window = Window.parse("h -> h' i<2: h' + i - 1, reflect")
    assert unfold(x, "h -> h' i", window).tolist() == unfolded(x.tolist(), window)
    y = torch.arange(14).reshape(7, 2).to(dtype)
    assert fold(y, "h' i -> h", window).tolist() == folded(y.tolist(), window, 6)


@pytest.mark.parametrize("lead", [(), (0,), (2,), (2, 1, 3)])
def test_any_axes_may_lead(lead: tuple[int, ...]) -> None:
    window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    x = torch.randn(*lead, 8, 2)
    seen = unfold(x, "... h c -> ... c i h'", window)
    assert seen.shape == (*lead, 2, 3, 4)
    assert fold(seen, "... c i h' -> ... h c", window, h=8).shape == x.shape
    for index in itertools.product(*map(range, lead)):
        torch.testing.assert_close(seen[index], unfold(x[index], "h c -> c i h'", window))


BAD: dict[str, Callable[[Tensor, Window], Any]] = {
    "axis stays": lambda x, window: unfold(x, "c h -> c h h' i", window),
    "axis missing": lambda x, window: unfold(x, "c w -> c h' i", window),
    "axis lost": lambda x, window: unfold(x, "c h -> h' i", window),
    "place missing": lambda x, window: unfold(x, "c h -> c h'", window),
    "axis new": lambda x, window: unfold(x, "c h -> c h' i k", window),
    "only one leads": lambda x, window: unfold(x, "... c h -> c h' i", window),
    "a group": lambda x, window: unfold(x, "(c h) -> c h' i", window),
    "two tensors": lambda x, window: unfold(x, "c h, c -> c h' i", window),
    "no window": lambda x, window: unfold(x, "c h -> c h"),
    "too many axes": lambda x, window: unfold(x[None], "c h -> c h' i", window),
    "too few axes": lambda x, window: unfold(x[0], "... c h -> ... c h' i", window),
    "too short": lambda x, window: unfold(x[:, :0], "c h -> c h' i", window),
    "fold, the wrong way": lambda x, window: fold(x, "c h -> c h' i", window),
    "fold, another place": lambda x, window: fold(torch.ones(2, 4, 2), "c h' i -> c h", window),
    "fold, too long": lambda x, window: fold(torch.ones(2, 4, 3), "c h' i -> c h", window, h=9),
    "fold, too short": lambda x, window: fold(torch.ones(2, 4, 3), "c h' i -> c h", window, h=6),
    "fold, nothing": lambda x, window: fold(torch.ones(2, 0, 3), "c h' i -> c h", window),
    "fold, no such axis": lambda x, window: fold(torch.ones(2, 4, 3), "c h' i -> c h", window, w=8),
}


def test_messages_of_invalid_calls(golden: Callable[[str, str], None]) -> None:
    window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    messages = []
    for name, call in BAD.items():
        with pytest.raises(CircuitError) as caught:
            call(torch.randn(2, 8), window)
        messages.append(f"# {name}\n{type(caught.value).__name__}: {caught.value}\n")
    golden("windows/misfits.txt", "\n".join(messages))


# --- As torch transforms them -----------------------------------------------------------------------------------------


@circuit("... h w -> ... h' w' i j")
def look(image: Tensor) -> Tensor:
    return unfold(image, "... h w -> ... h' w' i j", *Window.over("h w -> h' w' i j", 3, stride=2, padding=1))


@circuit("... h' w' i j -> ... h w")
def write(image: Tensor) -> Tensor:
    found = Window.over("h w -> h' w' i j", 3, stride=2, padding=1, mode="circular")
    return fold(image, "... h' w' i j -> ... h w", *found)


INPUTS = [(look, (2, 7, 8)), (write, (2, 3, 4, 3, 3))]


@pytest.mark.parametrize(("verb", "shape"), INPUTS)
def test_vmap(verb: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(5, *shape)
    torch.testing.assert_close(torch.vmap(verb)(x), verb(x))
    torch.testing.assert_close(torch.vmap(verb, in_dims=-1, out_dims=-1)(x.movedim(0, -1)), verb(x).movedim(0, -1))


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "shape"), INPUTS)
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_they_compile_into_one_graph(verb: Any, shape: tuple[int, ...], dynamic: bool) -> None:
    torch._dynamo.reset()
    x = torch.randn(shape, requires_grad=True)
    compiled = torch.compile(verb, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    torch.testing.assert_close(compiled(x), verb(x))
    y = torch.randn_like(verb(x))
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x, y), torch.autograd.grad(verb(x), x, y))


@pytest.mark.parametrize(("verb", "shape"), INPUTS)
def test_shapes_on_the_meta_device(verb: Any, shape: tuple[int, ...]) -> None:
    assert verb(torch.empty(shape, device="meta")).shape == verb(torch.randn(shape)).shape


@pytest.mark.slow
def test_a_table_shows_the_map_and_sizes_as_formulas(golden: Callable[[str, str], None]) -> None:
    seen, written = trace(look), trace(write, sizes={"i": 3, "j": 3})
    golden("windows/table.txt", f"{seen}\n{written}\n")
    x = torch.randn(9, 12)
    torch.testing.assert_close(seen(x), look(x))
    y = torch.randn(4, 5, 3, 3)
    torch.testing.assert_close(written(y), write(y))


@pytest.mark.slow
def test_a_symbolic_window_size_stays_symbolic() -> None:
    @circuit("a, b -> c")
    def correlate(a: Tensor, b: Tensor) -> Tensor:
        window = Window("a", "c", "b", b.shape[0], stride=2, before=b.shape[0], after=1)
        return einsum(unfold(a, "a -> c b", window), b, "c b, b -> c")

    diagram = trace(correlate)
    assert diagram.fixed == ()
    for a, b in ((9, 4), (5, 2)):
        x, y = torch.randn(a), torch.randn(b)
        expected = F.conv1d(F.pad(x, (b, 1))[None], y[None, None], stride=2)[0]
        torch.testing.assert_close(diagram(x, y), expected)
