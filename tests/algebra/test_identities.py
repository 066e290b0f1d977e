"""Identities 1 to 8, on indexing, broadcasting, linear maps and convolutions, one test each on a hundred random cases.

Results are compared with loops and dense matrices in float64. The operations of identities 4, 5, 6 and 8 are also
tested in test_linear_map and test_windows, and convolutions with all their options in test_convolution.
"""

import itertools
import warnings
from typing import Any

import functorch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuits import LinearMap, Window, broadcast, circuit, einsum, fold, transposed, unfold
from models.parts.convolve import convolution1d, transposed_convolution1d

SIZES = st.integers(0, 4)

hundred = settings(max_examples=100)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


@circuit("a, d -> b")
def uneven(x: Tensor, z: Tensor) -> Tensor:
    """A nonlinear circuit whose output depends on each index and each argument in a different way."""
    weights = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    return (weights * x.sin()).sum() * torch.tensor([1.0, -2.0], dtype=x.dtype) + (2 * z).cos().sum()


def index(axis: str, place: int) -> Any:
    """Return the circuit `axis -> ` that selects the element at index `place`."""

    @circuit(f"{axis} -> ")
    def at(x: Tensor) -> Tensor:
        return x[place]

    return at


@pytest.mark.slow
@hundred
@given(i=st.integers(1, 5), j=st.integers(1, 5))
def test_identity_1_indexes_in_any_order(i: int, j: int) -> None:
    """X[i, j] = X[i, :][j] = X[:, j][i], with indexing as circuits, compared with the nested list of the elements."""
    rows = randn(i, j).tolist()
    table = torch.tensor(rows, dtype=torch.float64)
    for row, column in {(0, 0), (i - 1, 0), (i // 2, j - 1)}:
        at_row, at_column = index("a", row), index("b", column)
        assert at_column(broadcast(at_row, "a b -> b")(table)).item() == rows[row][column]
        assert at_row(broadcast(at_column, "a b -> a")(table)).item() == rows[row][column]


VMAPS = pytest.mark.parametrize("vmap", [torch.func.vmap, functorch.vmap], ids=["torch.func", "functorch"])


def mapped(vmap: Any, *given: Any) -> Any:
    """Apply the vmap of torch.func or functorch, without functorch's deprecation warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return vmap(*given)


@VMAPS
@hundred
@given(a=SIZES, d=SIZES, c=st.integers(1, 4), e=st.integers(1, 4))
def test_identity_2_index_then_apply_is_apply_then_index(vmap: Any, a: int, d: int, c: int, e: int) -> None:
    """Broadcasting over two axes, one of them in both arguments, is compared at every index, and with vmap."""
    x, z = randn(c, a, e), randn(d, c)
    found = broadcast(uneven, "c a e, d c -> e b c")(x, z)
    for at, to in itertools.product(range(c), range(e)):
        torch.testing.assert_close(found[to, :, at], uneven(x[at, :, to], z[:, at]))
    inner = mapped(vmap, uneven, (1, None), 1)
    torch.testing.assert_close(found, mapped(vmap, inner, (0, 1), 2)(x, z).transpose(0, 1))


@VMAPS
@hundred
@given(a=SIZES, d=SIZES, c=st.integers(1, 4))
def test_identity_3_inner_broadcasting_shares_the_other_argument(vmap: Any, a: int, d: int, c: int) -> None:
    """H: a, d -> b is broadcast to c a, d -> c b."""
    x, z = randn(c, a), randn(d)
    found = broadcast(uneven, "c a, d -> c b")(x, z)
    for at in range(c):
        torch.testing.assert_close(found[at], uneven(x[at], z))
    torch.testing.assert_close(found, mapped(vmap, uneven, (0, None))(x, z))


@pytest.mark.parametrize("target", ["c a, d -> c b", "a c, d -> b c"])
@given(a=SIZES, d=SIZES)
def test_identities_2_and_3_over_an_axis_of_size_zero(target: str, a: int, d: int) -> None:
    """Broadcasting over an empty axis returns an empty tensor of the right shape, where vmap raises."""
    shapes = {"c a, d -> c b": ((0, a), (0, 2)), "a c, d -> b c": ((a, 0), (2, 0))}
    into, out = shapes[target]
    assert broadcast(uneven, target)(randn(*into), randn(d)).shape == out


@hundred
@given(y=SIZES, x=SIZES, k=SIZES, h=SIZES)
def test_identity_4_scores_of_heads_step_by_step(y: int, x: int, k: int, h: int) -> None:
    """Transpose, outer product, diagonal, inner product = one einsum `y k h, x k h -> y x h` = a loop."""
    query, key = randn(y, k, h), randn(x, k, h)
    turned = LinearMap(key, "-> x k h").ordered("-> k x h").named("-> k' x h'")
    outer = LinearMap(query, "-> y k h").outer(turned)
    steps = (outer >> LinearMap.diagonal("h", h) >> LinearMap.inner_product("k", k)).ordered("-> y x h").tensor
    expected = zeros(y, x, h)
    for i, j, n, a in itertools.product(range(y), range(x), range(h), range(k)):
        expected[i, j, n] += query[i, a, n] * key[j, a, n]
    torch.testing.assert_close(steps, expected)
    torch.testing.assert_close(einsum(query, key, "y k h, x k h -> y x h"), expected)


@pytest.mark.slow
@hundred
@given(a=SIZES, b=SIZES, c=SIZES)
def test_identity_5_transposes_in_three_ways(a: int, b: int, c: int) -> None:
    """F: a -> b c as b a -> c by broadcasting, by the unit, by `transpose`; unit then inner product is the identity."""
    f, x = LinearMap(randn(a, b, c), "a -> b c"), randn(b, a)
    expected = zeros(c)
    for i, j in itertools.product(range(b), range(a)):
        expected += x[i, j] * f.tensor[j, i]
    lifted = LinearMap(broadcast(f, "b' a -> b' b c")(x), "-> b' b c")
    torch.testing.assert_close((lifted >> LinearMap.inner_product("b", b)).tensor, expected)
    unit = LinearMap.unit("b", b).transpose("b'").outer(f.named("a -> b'' c"))
    by_unit = (unit >> LinearMap.inner_product("b", b).named("b b'' ->")).named("b a -> c")
    torch.testing.assert_close(by_unit(x), expected)
    torch.testing.assert_close(f.transpose("b")(x), expected)
    snake = LinearMap.identity("b", b=b).named("b -> b''").outer(LinearMap.unit("b", b))
    straight = snake >> LinearMap.inner_product("b", b).named("b'' b ->")
    torch.testing.assert_close(straight(x.T), x.T)


@hundred
@given(a=SIZES, b=SIZES, c=SIZES, d=SIZES)
def test_identity_6_linear_maps_on_different_axes_commute(a: int, b: int, c: int, d: int) -> None:
    """(G x id)(id x H) = (id x H)(G x id), compared with a loop over four axes; also with outer products of inputs."""
    g, h = LinearMap(randn(a, b), "a -> b"), LinearMap(randn(c, d), "c -> d")
    expected = zeros(a, c, b, d)
    for i, j, k, n in itertools.product(range(a), range(b), range(c), range(d)):
        expected[i, k, j, n] = g.tensor[i, j] * h.tensor[k, n]
    first_g = g.outer(LinearMap.identity("c", c=c)) >> LinearMap.identity("b", b=b).outer(h)
    first_h = LinearMap.identity("a", a=a).outer(h) >> g.outer(LinearMap.identity("d", d=d))
    for both in (first_g, first_h, g.outer(h)):
        torch.testing.assert_close(both.tensor, expected)
    x, y = LinearMap(randn(a), "-> a"), LinearMap(randn(c), "-> c")
    before, after = (x.outer(y) >> g.outer(h)).tensor, (x >> g).outer(y >> h).tensor
    torch.testing.assert_close(before, torch.outer(x.tensor @ g.tensor, y.tensor @ h.tensor))
    torch.testing.assert_close(after, before)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, int]:
    """Draw a window and the size of an axis, such that the window has at least one position on the axis."""
    size, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    window = Window(
        "h", "h'", "i", size, stride, dilation, before=draw(st.integers(0, 3)), after=draw(st.integers(0, 3))
    )
    return window, max(1, window.reach - window.before - window.after) + draw(st.integers(0, 5))


def window_matrix(window: Window, size: int) -> Tensor:
    """Return the dense tensor `h' i h` of a window: 1 where h = s*h' + d*i - p, for stride s, dilation d, padding p."""
    count = (size + window.before + window.after - window.dilation * (window.size - 1) - 1) // window.stride + 1
    matrix = zeros(count, window.size, size)
    for at, place in itertools.product(range(count), range(window.size)):
        source = window.stride * at + window.dilation * place - window.before
        if 0 <= source < size:
            matrix[at, place, source] = 1
    return matrix


@hundred
@given(case=windows(), c=st.integers(1, 3), k=st.integers(1, 3))
def test_identity_7_a_convolution_is_a_window_then_a_linear_map(case: Any, c: int, k: int) -> None:
    """Compared with the window's dense tensor; shifting the image by the stride shifts the outputs by one."""
    (window, size), matrix = case, window_matrix(*case)
    x, weight = randn(c, size), randn(k, c, window.size)
    options: Any = {"stride": window.stride, "dilation": window.dilation}
    found = convolution1d(x, weight, padding=((window.before, window.after),), **options)
    linear = LinearMap(torch.einsum("wih,kci->chkw", matrix, weight), "c h -> k h'")
    torch.testing.assert_close(found, linear(x))
    if size >= window.reach:
        shifted = convolution1d(torch.cat([randn(c, window.stride), x], -1), weight, **options)
        torch.testing.assert_close(shifted[:, 1:], convolution1d(x, weight, **options))


@pytest.mark.slow
@hundred
@given(case=windows(), b=SIZES, order=st.permutations("abc"))
def test_identity_8_transposes(case: Any, b: int, order: list[str]) -> None:
    """Repeat and sum, diagonal read and write, unfold and fold, permutation and inverse are each other's transposes."""
    (window, size), matrix = case, window_matrix(*case)
    total, read = LinearMap.identity("b ->", b=b), LinearMap.diagonal("b", b)
    x, square = randn(b), randn(b, b)
    assert total.transpose()().tolist() == [1.0] * b
    torch.testing.assert_close(total(square), sum((square[:, i] for i in range(b)), zeros(b)))
    torch.testing.assert_close(read.transpose()(x), torch.diag(x))
    torch.testing.assert_close(read(square), torch.tensor([square[i, i] for i in range(b)], dtype=torch.float64))
    turn = LinearMap.identity(f"a b c -> {' '.join(order)}", a=2, b=b, c=3)
    whole = randn(2, b, 3)
    torch.testing.assert_close(turn.transpose()(turn(whole)), whole)
    for f in (total, read, turn):
        assert f.transpose().transpose() == f
    image, seen = randn(2, size), randn(2, len(matrix), window.size)
    torch.testing.assert_close(unfold(image, "c h -> c h' i", window), torch.einsum("wih,ch->cwi", matrix, image))
    written = fold(seen, transposed("c h -> c h' i"), window, h=size)
    torch.testing.assert_close(written, torch.einsum("wih,cwi->ch", matrix, seen))


@hundred
@given(case=windows(), c=st.integers(1, 3), k=st.integers(1, 3))
def test_identities_7_and_8_a_transposed_convolution_is_the_matrix_transposed(case: Any, c: int, k: int) -> None:
    (window, size), matrix = case, window_matrix(*case)
    weight, y = randn(k, c, window.size), randn(k, len(matrix))
    linear = LinearMap(torch.einsum("wih,kci->chkw", matrix, weight), "c h -> k h'")
    found = transposed_convolution1d(
        y,
        weight,
        stride=window.stride,
        dilation=window.dilation,
        padding=((window.before, window.after),),
        output_padding=window.output_padding(size),
    )
    torch.testing.assert_close(found, linear.transpose()(y))
