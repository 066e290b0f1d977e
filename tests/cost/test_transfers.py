"""transfers: its formulas equal what schedules written by hand move and hold; its optimum is never beaten."""

import itertools
import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from einops import EinopsError
from torch import Tensor, nn

from circuits import CircuitError, Diagram, Transfers, broadcast, circuit, einsum, rearrange, reduce, trace, transfers
from circuits.cost import io
from models.attention import MultiHeadAttention
from models.scaled_dot_product import attention, grouped_attention
from tests.cost import two_memories
from tests.cost.two_memories import Fast


@circuit("a b, b c -> a c")
def matmul(x: Tensor, y: Tensor) -> Tensor:
    return einsum(x, y, "a b, b c -> a c")


@circuit("b m, f m, n f -> b n")
def mlp(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    hidden = einsum(x, first, "b m, f m -> b f").relu()
    return einsum(hidden, second, "b f, n f -> b n")


def symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, positive=True)


A, B, C, M, X, Y, K = [symbol(name) for name in "abcMxyk"]


@cache
def tiled() -> Transfers:
    return transfers(matmul, group="a c", stream="b")


@cache
def streamed() -> Transfers:
    return transfers(attention, group="y", stream="x")


# --- a matrix product -------------------------------------------------------------------------------------------------


def test_the_tiled_matrix_product_is_that_of_the_paper() -> None:
    rows, columns, block = symbol("g_a"), symbol("g_c"), symbol("s_b")
    assert sympy.expand(tiled().formula - (A * B * C / rows + A * B * C / columns + A * C)) == 0
    assert sympy.expand(tiled().memory - (rows * columns + rows * block + columns * block)) == 0
    assert sympy.simplify(tiled().optimum - (2 * A * B * C / sympy.sqrt(M) + A * C)) == 0
    assert tiled().groups == {"a": sympy.sqrt(M), "c": sympy.sqrt(M)}
    assert tiled().exponent == sympy.Rational(1, 2)
    assert [str(each).partition(" at ")[0] for each in tiled().accumulators] == ["einsum 'a b, b c -> a c'"]
    assert tiled().accumulators[0].names == ("sum of products",)


def test_a_shell_shows_what_is_moved_in_one_line() -> None:
    moved = "moves a*b*c/g_c+a*b*c/g_a+a*c"
    assert repr(tiled()) == f"Transfers('{tiled().name}', grouped over a c, streamed over b: {moved})"
    whole = transfers(lambda x: x.exp(), torch.rand(3))
    assert repr(whole) == "Transfers('<lambda>', in one piece: moves 6)"


def test_the_numbers_of_the_tiled_matrix_product() -> None:
    """REFERENCE 4: 5.536e8 elements at 4096³ with 65536 elements of fast memory; ab + bc + ac with any number."""
    sizes = dict.fromkeys("abc", 4096)
    found = tiled().at(**sizes, M=65536)
    assert found.optimum == 2 * 4096**3 // 256 + 4096**2
    assert float(found.optimum) == pytest.approx(5.536e8, rel=1e-4)
    assert found.tiling().moved >= found.optimum
    unlimited = tiled().at(**sizes, M=10**12)
    assert unlimited.least == unlimited.tiling().moved == 3 * 4096**2
    assert sympy.expand(tiled().floor - (A * B + B * C + A * C)) == 0


def test_half_the_bytes_of_an_element() -> None:
    """From FP16 to FP8 a matrix product moves 2.83× fewer bytes, attention 4×: in the same bytes of fast memory."""
    assert float(tiled().gain(2, 1)) == pytest.approx(2.83, abs=5e-3)
    assert streamed().gain(2, 1) == 4
    for found, constant in ((tiled(), A * C), (streamed(), 2 * K * Y)):
        bytes_at = [size * (found.optimum - constant).subs(M, 10**6 / size) for size in (2, 1)]
        assert float(sympy.simplify(bytes_at[0] / bytes_at[1])) == pytest.approx(float(found.gain(2, 1)))


@pytest.mark.parametrize(("rows", "columns", "block"), [(1, 1, 1), (2, 3, 5), (3, 12, 10), (12, 12, 10)])
def test_a_tiled_matrix_product_moves_and_holds_what_the_formulas_say(rows: int, columns: int, block: int) -> None:
    x, y = torch.randn(12, 10, dtype=torch.float64), torch.randn(10, 12, dtype=torch.float64)
    fast = Fast()
    torch.testing.assert_close(two_memories.matmul(fast, x, y, rows, columns, block), x @ y)
    found = tiled().at(a=12, b=10, c=12, g_a=rows, g_c=columns, s_b=block)
    assert (fast.moved, fast.peak) == (found.formula, found.memory)


@pytest.mark.parametrize("case", range(6))
def test_no_tiling_of_a_matrix_product_beats_the_closed_form(case: int) -> None:
    """All tilings are tried: none moves less than `least`, and `tiling` finds one that moves least."""
    rng = random.Random(case)
    a, b, c, memory = rng.randint(1, 12), rng.randint(1, 9), rng.randint(1, 12), rng.randint(3, 120)
    fits = [(g, h) for g, h in itertools.product(range(1, a + 1), range(1, c + 1)) if g * h + g + h <= memory]
    fewest = min([a * b * math.ceil(c / h) + b * c * math.ceil(a / g) + a * c for g, h in fits])
    found = tiled().at(a=a, b=b, c=c, M=memory)
    tiling = found.tiling()
    assert float(found.least) <= fewest == tiling.moved
    assert tiling.memory <= memory
    groups, blocks = tiling.groups, tiling.blocks
    fast = Fast()
    two_memories.matmul(fast, torch.ones(a, b), torch.ones(b, c), groups["a"], groups["c"], blocks["b"])
    assert (fast.moved, fast.peak) == (tiling.moved, tiling.memory)


def test_the_optimum_is_the_least_of_the_formula() -> None:
    """Between group sizes whose product is M no other moves less: tried on a fine grid."""
    moved = sympy.lambdify([symbol("g_a"), symbol("g_c")], tiled().formula.subs({A: 100, B: 70, C: 30}))
    optimum = float(tiled().optimum.subs({A: 100, B: 70, C: 30, M: 400}))
    tried = [moved(size, 400 / size) for size in [4 * 1.001**power for power in range(4000)]]
    assert optimum == pytest.approx(min(tried), rel=1e-6)
    assert optimum <= min(tried) * (1 + 1e-12)


def test_the_weights_of_the_terms_need_not_be_equal() -> None:
    """A sum 3/g + 5/h under g² h ≤ 1000, on a fine grid: the terms have the shares 2/3 and 1/3."""
    g, h = symbol("g"), symbol("h")
    terms = {frozenset([g]): sympy.Integer(3), frozenset([h]): sympy.Integer(5)}
    found = io.best(terms, [g**2 * h], [g, h], sympy.Integer(1000))
    tried = [3 / size + 5 * size**2 / 1000 for size in [1.0005**power for power in range(12000)]]
    assert float(found.moved) == pytest.approx(min(tried), rel=1e-6)
    assert float(found.groups[g] ** 2 * found.groups[h]) == pytest.approx(1000)
    assert io.exponent_of(terms, [g**2 * h], [g, h]) == sympy.Rational(1, 3)


# --- attention --------------------------------------------------------------------------------------------------------


def test_attention_keeps_the_accumulators_of_an_online_softmax() -> None:
    assert streamed().exponent == 1
    size = symbol("g_y")
    assert sympy.expand(streamed().formula - (2 * Y * K + 2 * X * K * Y / size)) == 0
    names = [each.names for each in streamed().accumulators]
    assert names == [("running maximum", "running sum"), ("weighted sum",)]
    assert all(each.axis == "x" and "scaled_dot_product.py" in each.box for each in streamed().accumulators)
    assert sympy.simplify(streamed().optimum - (2 * Y * K + 4 * X * Y * K * (K + 1) / M)) == 0


@pytest.mark.parametrize(("group", "block"), [(1, 1), (2, 3), (8, 12)])
def test_streamed_attention_is_the_dense_one_and_moves_what_the_formulas_say(group: int, block: int) -> None:
    q, k, v = [torch.randn(size, 5, dtype=torch.float64) for size in (8, 12, 12)]
    fast = Fast()
    torch.testing.assert_close(two_memories.attention(fast, q, k, v, group, block), attention(q, k, v))
    found = streamed().at(y=8, x=12, k=5, g_y=group, s_x=block)
    assert (fast.moved, fast.peak) == (found.formula, found.memory)


@pytest.mark.parametrize("case", range(4))
def test_no_tiling_of_attention_beats_the_closed_form(case: int) -> None:
    rng = random.Random(case)
    y, x, k, memory = rng.randint(1, 40), rng.randint(1, 40), rng.randint(1, 6), rng.randint(25, 300)
    q, keys = torch.ones(y, k), torch.ones(x, k)
    tried = []
    for group in range(1, y + 1):
        two_memories.attention(fast := Fast(), q, keys, keys, group, 1)
        tried += [fast.moved] if fast.peak <= memory else []
    found = streamed().at(y=y, x=x, k=k, M=memory)
    assert float(found.least) <= min(tried) == found.tiling().moved


def test_online_softmax_in_blocks_of_two() -> None:
    """Identity 12: scores 0, 1, 2, 3, values 1, 2, 4, 8."""
    scores, values = [torch.tensor(each, dtype=torch.float64) for each in ([[0.0, 1, 2, 3]], [[1.0], [2], [4], [8]])]
    best, total, mixed = [torch.tensor([[each]], dtype=torch.float64) for each in (-math.inf, 0.0, 0.0)]
    seen = []
    for at in (0, 2):
        best, total, mixed = two_memories.online(best, total, mixed, scores[:, at : at + 2], values[at : at + 2])
        seen.append([float(each) for each in (best, total, mixed)])
    assert seen[0] == pytest.approx([1, 1.367879, 2.367879], abs=5e-7)
    assert seen[1] == pytest.approx([3, 1.553002, 9.791975], abs=5e-7)
    assert seen[1][2] / seen[1][1] == pytest.approx(6.305193, abs=5e-7)
    torch.testing.assert_close(mixed / total, scores.softmax(-1) @ values)


def test_heads_are_grouped_and_move_nothing_more() -> None:
    heads = broadcast(attention, "h y k, h x k, h x k -> h y k")
    found = transfers(heads, group="h y", stream="x")
    h = symbol("h")
    assert sympy.expand(found.formula - h * streamed().formula) == 0
    assert found.groups["h"] == 1
    assert found.exponent == 1
    assert found.at(h=3, y=50, x=60, k=4, M=200).tiling().groups["h"] == 1


def test_heads_that_share_keys_read_them_once_for_each_group_of_heads() -> None:
    found = transfers(grouped_attention, group="g n y", stream="x")
    g, n = symbol("g"), symbol("n")
    reads = 2 * g * X * K * (n / symbol("g_n")) * (Y / symbol("g_y"))
    assert sympy.expand(found.formula - reads - 2 * g * n * Y * K) == 0


def test_multi_head_attention_streams_its_source() -> None:
    found = transfers(MultiHeadAttention(m=8, k=2, h=3), group="y", stream="x")
    weights, size = 4 * 8 * 6, symbol("g_y")
    assert sympy.expand(found.formula - (2 * 8 * Y + 8 * X * Y / size + weights * Y / size)) == 0
    with pytest.raises(CircuitError, match=r"h cannot be grouped: linear at .*: it sums over h"):
        transfers(MultiHeadAttention(m=8, k=2, h=3), group="h")


@pytest.mark.slow
def test_fused_attention_is_counted_by_its_definition() -> None:
    """Unlike in `attention` the queries are scaled inside, which changes nothing; a mask is one more tensor to read."""
    fused = transfers(F.scaled_dot_product_attention, axes="y k, x k, x k", group="y", stream="x")
    assert sympy.expand(fused.formula - streamed().formula) == 0
    assert sympy.expand(fused.memory - streamed().memory) == 0
    assert fused.accumulators[1].names == ("weighted sum",)

    masked = transfers(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), group="y", stream="x",
                       axes="h y k, h x k, h x k, y x")  # fmt: skip
    assert sympy.expand(masked.formula - symbol("h") * streamed().formula - X * Y) == 0
    for z in ("t m", "b t m"):
        for group, stream in (("t", ""), ("", "t")):
            with pytest.raises(CircuitError, match=r"t cannot be .*: einsum of scaled_dot_product_attention at"):
                transfers(trace(lambda z: F.scaled_dot_product_attention(z, z, z), axes=z), group=group, stream=stream)


# --- other circuits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 3])
def test_an_mlp_reads_its_weights_once_for_each_group(group: int) -> None:
    x, first, second = [torch.randn(*size, dtype=torch.float64) for size in ((12, 4), (7, 4), (3, 7))]
    fast = Fast()
    torch.testing.assert_close(two_memories.mlp(fast, x, first, second, group), (x @ first.T).relu() @ second.T)
    found = transfers(mlp, group="b").at(b=12, m=4, f=7, n=3, g_b=group)
    assert (fast.moved, fast.peak) == (found.formula, found.memory)


def test_a_module_without_signature_by_its_axes() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    found = transfers(model, axes="b m", sizes={"m": 8}, group="b")
    parameters = sum([each.numel() for each in model.parameters()])
    assert sympy.expand(found.formula - symbol("b") * (8 + 3 + parameters / symbol("g_b"))) == 0


def test_three_groups() -> None:
    """Every pair of axes has a tensor: the elements fall with the cube root of M."""
    found = transfers(lambda x, y, z: x * y * z, axes="a b 1, 1 b c, a 1 c", group="a b c")
    assert found.exponent == sympy.Rational(1, 3)
    numbers = dict(zip("abc", (9, 7, 8), strict=True))
    for memory in (20, 60, 150):
        here = found.at(**numbers, M=memory)
        assert float(here.least) <= here.tiling().moved


def test_a_weight_shared_by_two_grouped_axes_depends_on_their_product() -> None:
    found = transfers(lambda x, w: torch.einsum("btm,mn->btn", x, w), axes="b t m, m n", group="b t")
    b, t, m, n = [symbol(name) for name in "btmn"]
    each = symbol("g_b") * symbol("g_t")
    assert sympy.expand(found.formula - (b * t * m + b * t * n + m * n * b * t / each)) == 0
    assert found.exponent == 1


@pytest.mark.slow
def test_names_are_those_of_the_outermost_box() -> None:
    @circuit("q d, s d, s d -> q d")
    def around(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value) + attention(query * 2, key, value)

    found = transfers(around, group="q", stream="s")
    assert [each.names for each in found.accumulators] == 2 * [("running maximum", "running sum"), ("weighted sum",)]
    assert sympy.expand(found.formula - streamed().formula.subs({
        Y: symbol("q"), X: symbol("s"), K: symbol("d"), symbol("g_y"): symbol("g_q")})) == 0  # fmt: skip
    with pytest.raises(CircuitError, match="no axis is called 'y'; there are q, d, s"):
        transfers(around, group="y")


# --- what is refused --------------------------------------------------------------------------------------------------


@circuit("y x -> y x")
def plain_softmax(v: Tensor) -> Tensor:
    return v.softmax(-1)


@circuit("y x -> y")
def softmax_in_steps(v: Tensor) -> Tensor:
    weight = (v - v.amax(-1, keepdim=True)).exp()
    return (weight / weight.sum(-1, keepdim=True)).sum(-1)


@circuit("y x, x d -> y d, y x")
def softmax_that_is_returned(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    weight = v.softmax(-1)
    return einsum(weight, w, "y x, x d -> y d"), weight


@circuit("y x -> y")
def softmax_squared(v: Tensor) -> Tensor:
    weight = v.softmax(-1)
    return einsum(weight, weight * 2.0, "y x, y x -> y")


@circuit("y x, x d -> y d")
def softmax_bent(v: Tensor, w: Tensor) -> Tensor:
    return einsum(v.softmax(-1).square(), w, "y x, x d -> y d")


@circuit("t m -> t m")
def self_attention(z: Tensor) -> Tensor:
    return attention(z, z, z)


@circuit("y m -> y m")
def rows_meet(x: Tensor) -> Tensor:
    return x - x.mean(0)


STREAM_REFUSALS = [
    (plain_softmax, "x", "softmax over x at", "a softmax over x, which needs all of x before"),
    (softmax_in_steps, "x", "sub at", "each block of x needs the result of amax"),
    (softmax_that_is_returned, "x", "softmax over x at", "which needs all of x before"),
    (softmax_squared, "x", "softmax over x at", "which needs all of x before"),
    (softmax_bent, "x", "softmax over x at", "which needs all of x before"),
    (self_attention, "t", "einsum '... y k, ... x k -> ... y x' at", "it reads t for an output axis that is not t"),
    (rows_meet, "y", "sub at", "each block of y needs the result of mean"),
    (attention, "k", "einsum '... y x, ... x k -> ... y k' at", "each block of k needs the result of einsum"),
]


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("target", "axis", "box", "why"), STREAM_REFUSALS, ids=[each[0].__name__ for each in STREAM_REFUSALS]
)
def test_streaming_is_refused_by_axis_box_and_line(target: Any, axis: str, box: str, why: str) -> None:
    with pytest.raises(CircuitError) as caught:
        transfers(target, stream=axis)
    message = str(caught.value)
    assert message.startswith(f"transfers: {axis} cannot be streamed: {box}")
    assert why in message
    assert ".py:" in message
    assert "\n  what would work: " in message


def test_a_softmax_after_linear_maps_is_streamed() -> None:
    @circuit("y x, y x, x d -> y d")
    def scaled(v: Tensor, mask: Tensor, w: Tensor) -> Tensor:
        return einsum(nn.functional.dropout(v.softmax(-1) * mask, 0.1), w, "y x, x d -> y d")

    assert transfers(scaled, stream="x").accumulators[1].names == ("weighted sum",)


def test_an_operation_without_rule_is_refused_where_it_has_the_axis_and_only_there() -> None:
    def rolled(x: Tensor) -> Tensor:
        return x.roll(1, -1)

    for group, stream in (("m", ""), ("", "m"), ("b", "")):
        with pytest.raises(CircuitError, match=r"roll at .*: no rule says how it reads its axes"):
            transfers(rolled, axes="b m", group=group, stream=stream)
    assert transfers(lambda x, y: x + y.roll(1, -1).sum(), axes="b m, n", group="b").exponent == 1


def test_an_axis_that_others_are_computed_from_is_refused() -> None:
    @circuit("h, h/2 -> h, h/2")
    def halves(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), y.exp()

    with pytest.raises(CircuitError, match=r"h cannot be grouped: exp at .*: its axis h/2 is computed from h"):
        transfers(halves, group="h")


@pytest.mark.slow
def test_further_refusals() -> None:
    with pytest.raises(CircuitError, match="y is given twice"):
        transfers(attention, group="y", stream="y")
    with pytest.raises(CircuitError, match="no axis is called 'q'; there are y, k, x"):
        transfers(attention, group="q")
    with pytest.raises(CircuitError, match="takes no arguments of trace"):
        transfers(trace(attention), sizes={"y": 3})
    with pytest.raises(CircuitError, match=r"relu_ at .* writes in place to x: b m, which is in slow memory"):
        transfers(lambda x: x.relu_(), axes="b m", group="b")
    with pytest.raises(CircuitError, match="b and c cannot be streamed together"):
        transfers(matmul, stream="b c")
    with pytest.raises(CircuitError, match="no size is called 'q'; there are M, a, b, c, g_a, g_c, s_b"):
        tiled().at(q=3)
    with pytest.raises(CircuitError, match=r"tiling needs a number for M, a, b, c"):
        tiled().tiling()
    with pytest.raises(CircuitError, match="M = 2 elements are too few: groups and blocks of 1 need 3"):
        tiled().at(a=4, b=4, c=4, M=2).tiling()


# --- the rules, held to real runs -------------------------------------------------------------------------------------

OPERATIONS = {
    "add": (lambda x, y: x + y, "a b, b"),
    "mul": (lambda x, y: x * y, "a 1, b"),
    "where": (lambda x, y: torch.where(x > 0, x, y), "a b, a b"),
    "gelu": (nn.functional.gelu, "a b"),
    "tril": (lambda x: torch.tril(x), "c a b"),
    "softmax": (lambda x: x.softmax(0), "a b"),
    "log_softmax": (lambda x: x.log_softmax(-1), "a b"),
    "cumsum": (lambda x: x.cumsum(1), "a b c"),
    "flip": (lambda x: x.flip(0), "a b"),
    "sort": (lambda x: x.sort(-1).values, "a b"),
    "sum": (lambda x: x.sum(1), "a b c"),
    "sum keepdim": (lambda x: x - x.sum(1, keepdim=True), "a b c"),
    "mean of two": (lambda x: x.mean((0, -1)), "a b c"),
    "amax": (lambda x: x.amax(0), "a b"),
    "max": (lambda x: x.max(dim=-1).values, "a b"),
    "logsumexp": (lambda x: x.logsumexp(-1), "a b"),
    "prod": (lambda x: x.prod(0), "a b"),
    "any": (lambda x: (x > 0).any(-1), "a b"),
    "einsum": (lambda x, y: torch.einsum("abc,cd->bda", x, y), "a b c, c d"),
    "einsum with a diagonal": (lambda x, y: torch.einsum("ab,ab->ab", x, y), "a b, a b"),
    "einsum of one twice": (lambda x: torch.einsum("ac,bc->ab", x, x), "a c"),
    "matmul": (torch.matmul, "e a b, b c"),
    "matmul of a vector": (torch.matmul, "a b, b"),
    "vector times": (lambda x, y: x @ y, "b, e b c"),
    "batched": (torch.bmm, "e a b, e b c"),
    "linear": (nn.functional.linear, "e a b, c b, c"),
    "addmm": (torch.addmm, "c, a b, b c"),
    "layer_norm": (lambda x: nn.functional.layer_norm(x, x.shape[-1:]), "a b c"),
    "rms_norm": (lambda x: nn.functional.rms_norm(x, x.shape[-1:]), "a b c"),
    "conv1d": (lambda x, w: nn.functional.conv1d(x, w, padding=1), "a c x, d c 3"),
    "transpose": (lambda x: x.transpose(0, 1), "a b c"),
    "mT": (lambda x: x.mT, "a b c"),
    "index": (lambda x: x[:, None, ..., 0], "a b c"),
    "rearrange": (lambda x: rearrange(x, "a b c -> c (a b)"), "a b c"),
    "reduce": (lambda x: reduce(x, "a b c -> c a", "max"), "a b c"),
    "reduce all": (lambda x: reduce(x, "... b c -> ...", "sum"), "a b c"),
    "reduce parts": (lambda x: reduce(x, "a (q two) c -> a q c", "max", two=2), "a b c"),
    "slice": (lambda x: x[1:], "a b"),
    "slices that meet": (lambda x: x[1:] + x[:-1], "a b"),
    "self product": (lambda x: x @ x.mT, "a b"),
}
SIZES = {"a": 4, "b": 6, "c": 5, "d": 3, "e": 2, "x": 7}


def groupable(
    function: Callable[..., Tensor], inputs: list[Tensor], axes: list[list[str]], axis: str, output: int | None
) -> bool:
    """Whether the output in three groups of an axis is the whole output, along its axis at this place."""
    if output is None:
        return False
    whole, places = function(*inputs), range(SIZES[axis])
    for place in places:
        parts = [
            each.index_select(names.index(axis), torch.tensor([place])) if axis in names else each
            for each, names in zip(inputs, axes, strict=True)
        ]
        try:
            part = function(*parts)
        except (RuntimeError, EinopsError):
            return False
        expected = whole.index_select(output, torch.tensor([place]))
        if part.shape != expected.shape or not torch.allclose(part.double(), expected.double()):
            return False
    return True


def merged(
    function: Callable[..., Tensor], inputs: list[Tensor], axes: list[list[str]], axis: str, names: tuple[str, ...]
) -> Tensor:
    """The output that accumulators of these names give of two blocks of an axis, of unequal sizes."""
    cut = SIZES[axis] // 3 + 1
    blocks = []
    for places in (range(cut), range(cut, SIZES[axis])):
        index = torch.tensor([*places])
        pairs = zip(inputs, axes, strict=True)
        blocks.append([each.index_select(at.index(axis), index) if axis in at else each for each, at in pairs])
    first, second = [function(*block) for block in blocks]
    if function is OPERATIONS["mean of two"][0]:
        return (first * cut + second * (SIZES[axis] - cut)) / SIZES[axis]
    return MERGES[names](first, second)


MERGES = {
    ("running sum",): torch.add,
    ("sum of products",): torch.add,
    ("running maximum",): torch.maximum,
    ("running maximum", "its index"): torch.maximum,
    ("running maximum", "running sum"): torch.logaddexp,
    ("running product",): torch.mul,
    ("running any",): torch.logical_or,
}


def allowed(diagram: Diagram, group: str = "", stream: str = "") -> Transfers | None:
    try:
        return transfers(diagram, group=group, stream=stream)
    except CircuitError:
        return None


@pytest.mark.every(6)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_rule_of_an_operation_holds_in_real_runs(name: str) -> None:
    """For each axis: groups of one are allowed exactly if a real run in such groups gives the whole output.

    Where blocks are allowed, what the accumulators make of two blocks is the whole output.
    """
    function, text = OPERATIONS[name]
    torch.manual_seed(0)
    axes = [each.split() for each in text.split(",")]
    inputs = [torch.randn([SIZES.get(axis, 0) or int(axis) for axis in each], dtype=torch.float64) for each in axes]
    diagram = trace(function, axes=text)
    (output,) = diagram.outputs
    for axis in {axis for each in axes for axis in each if axis in SIZES}:
        if axis in EXCEPT.get(name, ""):
            assert allowed(diagram, group=axis)
            continue
        place = next((at for at, names in enumerate(output.axes) if names == axis), None)
        real = groupable(function, inputs, axes, axis, place)
        assert (allowed(diagram, group=axis) is not None) == real, axis
        found = allowed(diagram, stream=axis)
        if found is not None and found.accumulators:
            once = [each * 0 if place == ADDED.get(name) else each for place, each in enumerate(inputs)]
            blocks = merged(function, once, axes, axis, found.accumulators[0].names)
            torch.testing.assert_close(blocks, function(*once))
        else:
            assert (found is not None) == real, axis


ADDED = {"linear": 2, "addmm": 0}
"""The input that is added once, to the sum of all blocks."""

EXCEPT = {"tril": "ab", "rearrange": "ab"}
"""The axes whose groups are no slices: `tril` knows the position of a slice, and `(a b)` has one axis of both."""
