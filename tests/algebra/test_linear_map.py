"""LinearMap compared with dense matrices and loops: composition, transposes, products; and as_linear."""

import copy
import itertools
import pickle
import string
from collections.abc import Callable
from typing import Any

import opt_einsum
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import (
    CircuitError,
    LinearMap,
    ShapeError,
    SignatureError,
    as_linear,
    broadcast,
    circuit,
    einsum,
    find_circuit,
    trace,
)
from circuits.algebra.as_linear import nonlinearity
from models.attention import attention

SIZES = st.integers(0, 4)


def random_map(text: str, **sizes: int) -> LinearMap:
    shape = [sizes[name] for name in text.replace("->", " ").split()]
    return LinearMap(torch.randn(shape, dtype=torch.float64), text)


def matrix(f: LinearMap) -> Tensor:
    """Return the matrix of a map, inputs by outputs, computed by applying the map to every basis vector."""
    shape = [f.sizes[wire].size for wire in f.wires[: len(f.inputs)]]
    rows = []
    for index in itertools.product(*map(range, shape)):
        basis = torch.zeros(shape, dtype=torch.float64)
        basis[index] = 1
        rows.append((f(basis) if f.inputs else f()).flatten())
    out = [f.sizes[wire].size for wire in f.wires[len(f.inputs) :]]
    width = torch.Size(out).numel()
    return torch.stack(rows) if rows else torch.zeros(0, width, dtype=torch.float64)


def kron(a: Tensor, b: Tensor) -> Tensor:
    return torch.kron(a.contiguous(), b.contiguous())


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


# --- Figures 17 and 18 ------------------------------------------------------------------------------------------------


@pytest.mark.smoke
@given(y=SIZES, x=SIZES, k=SIZES, h=SIZES)
def test_figure_17_the_steps_of_qk_are_one_einsum(y: int, x: int, k: int, h: int) -> None:
    """Transpose, outer product, diagonal and inner product are `y k h, x k h -> y x h`, compared with loops."""
    query, key = torch.randn(y, k, h, dtype=torch.float64), torch.randn(x, k, h, dtype=torch.float64)
    q, turned = LinearMap(query, "-> y k h"), LinearMap(key, "-> x k h").ordered("-> k x h")
    side_by_side = q.outer(turned.named("-> k' x h'"))
    diagonalized = side_by_side >> LinearMap.diagonal("h", h)
    score = diagonalized.contract("k", "k'").ordered("-> y x h")
    expected = torch.zeros(y, x, h, dtype=torch.float64)
    for i, j, n in itertools.product(range(y), range(x), range(h)):
        expected[i, j, n] = sum((query[i, a, n] * key[j, a, n] for a in range(k)), torch.zeros(()))
    torch.testing.assert_close(score.tensor, expected)
    inner = side_by_side >> LinearMap.inner_product("k", k) >> LinearMap.diagonal("h", h)
    torch.testing.assert_close(inner.ordered("-> y x h").tensor, expected)


@given(a=SIZES, b=SIZES, c=SIZES)
def test_figure_18_transposed_by_broadcasting_and_by_the_unit(a: int, b: int, c: int) -> None:
    """F: a -> b c as b a -> c, by broadcasting, by the identity (the unit, half transposed), and by `transpose`."""
    f = random_map("a -> b c", a=a, b=b, c=c)
    x = torch.randn(b, a, dtype=torch.float64)
    expected = torch.zeros(c, dtype=torch.float64)
    for i, j in itertools.product(range(b), range(a)):
        expected += x[i, j] * f.tensor[j, i]
    bent = f.transpose("b")
    assert str(bent.signature) == "b a -> c"
    torch.testing.assert_close(bent(x), expected)

    lifted = broadcast(f, "b' a -> b' b c")(x)
    by_broadcasting = (LinearMap(lifted, "-> b' b c") >> LinearMap.inner_product("b", b)).tensor
    torch.testing.assert_close(by_broadcasting, expected)

    through = LinearMap.identity("b", b=b).named("b -> b'")
    by_unit = through.outer(f) >> LinearMap.inner_product("b", b)
    torch.testing.assert_close(by_unit(x), expected)
    assert by_unit.allclose(bent)
    assert bent.transpose("b") == f


@given(b=SIZES, lead=SIZES)
def test_unit_then_inner_product_is_the_identity(b: int, lead: int) -> None:
    """The unit, then the inner product with its other end, is the identity, for either end of the unit."""
    x = torch.randn(lead, b, dtype=torch.float64)
    cup, cap = LinearMap.unit("b", b), LinearMap.inner_product("b", b)
    left = LinearMap.identity("b", b=b).named("b -> b''").outer(cup) >> cap.named("b'' b ->")
    right = LinearMap.identity("b", b=b).named("b -> b''").outer(cup) >> cap.named("b'' b' ->")
    for snake in (left, right):
        torch.testing.assert_close(snake(x), x)
        assert snake.named("b -> b") == LinearMap.identity("b", b=b)
        assert not snake.factors


@given(a=SIZES, b=SIZES, c=SIZES, d=SIZES)
def test_linear_maps_on_different_axes_commute(a: int, b: int, c: int, d: int) -> None:
    """(G x id)(id x H) = (id x H)(G x id) = G x H, the Kronecker product of their matrices."""
    g, h = random_map("a -> b", a=a, b=b), random_map("c -> d", c=c, d=d)
    first_g = g.outer(LinearMap.identity("c", c=c)) >> LinearMap.identity("b", b=b).outer(h)
    first_h = LinearMap.identity("a", a=a).outer(h) >> g.outer(LinearMap.identity("d", d=d))
    expected = kron(g.tensor, h.tensor)
    for both in (first_g, first_h, g.outer(h)):
        torch.testing.assert_close(matrix(both), expected)
    assert first_g.allclose(first_h)


@given(a=SIZES, b=SIZES, c=SIZES, d=SIZES, e=SIZES)
def test_an_outer_product_may_be_taken_before_or_after(a: int, b: int, c: int, d: int, e: int) -> None:
    """The last line of Figure 18: the outer product of x and y, then G and H, then K; or G and H applied first."""
    g, h, k = random_map("a -> b", a=a, b=b), random_map("c -> d", c=c, d=d), random_map("b d -> e", b=b, d=d, e=e)
    x, y = random_map("-> a", a=a), random_map("-> c", c=c)
    before = (x.outer(y) >> g.outer(h)) >> k
    after = (x >> g).outer(y >> h) >> k
    expected = torch.zeros(e, dtype=torch.float64)
    for i, j in itertools.product(range(b), range(d)):
        expected += (x.tensor @ g.tensor)[i] * (y.tensor @ h.tensor)[j] * k.tensor[i, j]
    torch.testing.assert_close(before(), expected)
    torch.testing.assert_close(after(), expected)


@given(a=SIZES, b=SIZES, c=SIZES)
def test_composition_is_an_outer_product_with_a_transpose_and_a_contraction(a: int, b: int, c: int) -> None:
    """G followed by H is the outer product of G and the transpose of H, contracted."""
    g, h = random_map("a -> b", a=a, b=b), random_map("b -> c", b=b, c=c)
    bent = g.outer(h.transpose("b").named("-> b' c")).contract("b", "b'")
    torch.testing.assert_close(matrix(bent), g.tensor @ h.tensor)
    assert bent.allclose(g >> h)


@given(a=SIZES, b=SIZES)
def test_transposes_of_wires(a: int, b: int) -> None:
    """The transposes of repeat, sum, diagonal and permutation; transposing twice changes none."""
    turned = LinearMap.identity("a b -> b a", a=a, b=b)
    total, copies = LinearMap.identity("a ->", a=a), LinearMap.identity("-> a", a=a)
    read = LinearMap.diagonal("a", a)
    x, square = torch.randn(a, b, dtype=torch.float64), torch.randn(a, a, dtype=torch.float64)
    assert torch.equal(turned(x), x.T)
    assert torch.equal(turned.transpose()(x.T), x)
    torch.testing.assert_close(total(square), square.sum(-1))
    assert torch.equal(copies().double(), torch.ones(a, dtype=torch.float64))
    assert total.transpose() == copies
    assert torch.equal(read(square), square.diagonal())
    assert torch.equal(
        read.transpose()(square[:1].reshape(-1)[:a] if a else square[:0].sum(0)),
        (torch.diag(square[0]) if a else square),
    )
    for f in (turned, total, copies, read):
        assert f.transpose().transpose() == f
        torch.testing.assert_close(matrix(f.transpose()).double(), matrix(f).double().T)


# --- any maps ---------------------------------------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[LinearMap], str, list[tuple[str, ...]]]:
    """Draw maps to compose in order, the einsum equation of the composition, and its inputs and outputs.

    A map may act on some of the axes only; the composition keeps the others.
    """
    sizes = {name: draw(st.integers(1, 3)) for name in "abcdefghijk"}
    names = iter("abcdefghijk")
    start = [next(names) for _ in range(draw(st.integers(1, 2)))]
    now, maps, sides = [*start], [], []
    for _ in range(draw(st.integers(1, 4))):
        taken = draw(st.permutations(now))[: draw(st.integers(1, len(now)))] if maps else [*start]
        made = [next(names) for _ in range(draw(st.integers(0 if len(now) > len(taken) else 1, 2)))]
        maps.append(random_map(f"{' '.join(taken)} -> {' '.join(made)}", **sizes))
        sides.append((*taken, *made))
        now = [name for name in now if name not in taken] + made
    text = ",".join("".join(side) for side in sides)
    return maps, f"{text}->{''.join(start)}{''.join(now)}", [tuple(start), tuple(now)]


@given(chain=chains(), data=st.data())
def test_composition_in_any_bracketing_is_one_einsum(chain: Any, data: st.DataObject) -> None:
    maps, equation, (start, end) = chain
    expected = torch.einsum(equation, *[f.tensor for f in maps])
    left = maps[0]
    for f in maps[1:]:
        left = left >> f
    text = f"{' '.join(start)} -> {' '.join(end)}"
    torch.testing.assert_close(left.ordered(text).tensor, expected)
    bracketed = [*maps]
    while len(bracketed) > 1:
        at = data.draw(st.integers(0, len(bracketed) - 2))
        try:
            bracketed[at : at + 2] = [bracketed[at] >> bracketed[at + 1]]
        except SignatureError:
            bracketed[at : at + 2] = [bracketed[at].outer(bracketed[at + 1])]
    torch.testing.assert_close(bracketed[0].ordered(text).tensor, expected)
    x = torch.randn(2, *expected.shape[: len(start)], dtype=torch.float64)
    applied = torch.einsum(f"z{''.join(start)},{''.join(start)}{''.join(end)}->z{''.join(end)}", x, expected)
    torch.testing.assert_close(left.ordered(text)(x), applied)


@given(a=SIZES, b=SIZES, c=SIZES, d=SIZES, order=st.permutations("abcd"), count=st.integers(1, 4))
def test_transposing_any_axes_permutes_the_tensor(a: int, b: int, c: int, d: int, order: list[str], count: int) -> None:
    f, names = random_map("a b -> c d", a=a, b=b, c=c, d=d), order[:count]
    bent = f.transpose(*names)
    assert bent.inputs[: len(bent.inputs) - len({*"ab"} - {*names})] == tuple([name for name in names if name in "cd"])
    places = ["abcd".index(name) for name in (*bent.inputs, *bent.outputs)]
    assert torch.equal(bent.tensor, f.tensor.permute(places))
    assert bent.transpose(*names) == f
    assert torch.equal(f.transpose().tensor, f.tensor.permute(2, 3, 0, 1))


@given(a=SIZES, b=SIZES, c=SIZES)
def test_contract_is_a_trace(a: int, b: int, c: int) -> None:
    f = random_map("a b -> a c", a=a, b=b, c=c)
    expected = sum((f.tensor[i, :, i, :] for i in range(a)), torch.zeros(b, c, dtype=torch.float64))
    torch.testing.assert_close(f.contract("a").tensor, expected)
    g = random_map("b -> a a' c", a=a, b=b, c=c, **{"a'": a})
    torch.testing.assert_close(g.contract("a", "a'").tensor, g.tensor.diagonal(0, 1, 2).sum(-1))
    loop = LinearMap.unit("a", a).contract("a", "a'")
    assert loop.tensor.item() == a
    assert LinearMap.identity("a", a=a).contract("a")().item() == a


@given(a=SIZES, b=SIZES)
def test_the_adjoint_satisfies_its_definition(a: int, b: int) -> None:
    tensor = torch.randn(a, b, dtype=torch.complex128)
    f = LinearMap(tensor, "a -> b")
    x, y = torch.randn(a, dtype=torch.complex128), torch.randn(b, dtype=torch.complex128)
    torch.testing.assert_close(torch.vdot(y, f(x)), torch.vdot(f.adjoint()(y), x))
    assert f.adjoint().adjoint() == f


def test_the_inner_product_of_two_maps() -> None:
    f, g = random_map("a -> b c", a=2, b=3, c=4), random_map("d -> b c", d=5, b=3, c=4)
    expected = torch.einsum("abc,dbc->ad", f.tensor, g.tensor)
    torch.testing.assert_close(f.inner(g).ordered("a d ->").tensor, expected)
    x, y = random_map("-> b", b=3), random_map("-> b", b=3)
    torch.testing.assert_close(x.inner(y)(), x.tensor @ y.tensor)


@pytest.mark.smoke
def test_equality_is_up_to_the_order_of_axes() -> None:
    f = random_map("a -> b c", a=2, b=3, c=3)
    g = LinearMap(f.tensor.transpose(1, 2), "a -> c b")
    assert f == g
    assert f.allclose(g)
    assert f != LinearMap(f.tensor, "a -> c b")
    assert f != f.named("a -> b d")
    assert f != random_map("a -> b c", a=2, b=3, c=4)
    nearly = LinearMap(f.tensor * (1 + 1e-9), "a -> b c")
    assert nearly != f
    assert nearly.allclose(f)
    assert f != f.tensor


def test_axes_of_one_name_in_two_maps_are_not_mixed() -> None:
    """An axis that was contracted in one map is not contracted with an axis of the same name in another."""
    f, g = random_map("a -> b", a=2, b=3), random_map("b -> a", a=2, b=3)
    round_trip = f >> g
    torch.testing.assert_close(matrix(round_trip), f.tensor @ g.tensor)
    torch.testing.assert_close(matrix(round_trip >> round_trip), f.tensor @ g.tensor @ f.tensor @ g.tensor)
    torch.testing.assert_close(
        matrix(round_trip.outer(round_trip.named("a' -> a'"))), kron(f.tensor @ g.tensor, f.tensor @ g.tensor)
    )
    power = random_map("a -> a", a=3)
    torch.testing.assert_close(matrix(power >> power >> power), torch.linalg.matrix_power(power.tensor, 3))
    first, second = random_map("a -> b c", a=2, b=2, c=2), random_map("c -> b", b=2, c=2)
    with pytest.raises(SignatureError, match="would be named b"):
        first >> second  # pyright: ignore[reportUnusedExpression]


# --- one einsum -------------------------------------------------------------------------------------------------------


def test_a_chain_is_one_einsum_in_the_best_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of matrices applied to a vector is contracted from the vector on; no two matrices are multiplied."""
    paths: list[Any] = []
    plain = opt_einsum.contract_path

    def path(*args: Any, **options: Any) -> Any:
        paths.append(plain(*args, **options))
        return paths[-1]

    monkeypatch.setattr(torch.backends.opt_einsum.get_opt_einsum(), "contract_path", path)
    chain = random_map("a -> b", a=40, b=50) >> random_map("b -> c", b=50, c=60) >> random_map("c -> d", c=60, d=70)
    x = torch.randn(40, dtype=torch.float64)
    assert not paths
    found = chain(x)
    assert len(paths) == 1
    assert paths[0][1].opt_cost < 2 * (40 * 50 + 50 * 60 + 60 * 70) + 1
    a, b, c = [tensor for tensor, _ in chain.factors]
    torch.testing.assert_close(found, x @ a @ b @ c)
    torch.testing.assert_close(chain(2 * x), 2 * found)
    assert len(paths) == 1
    chain(torch.randn(3, 40, dtype=torch.float64))
    assert len(paths) == 2
    with torch.backends.opt_einsum.flags(strategy="greedy"):
        torch.testing.assert_close(chain(x), found)
    assert len(paths) == 3
    with torch.backends.opt_einsum.flags(enabled=False):
        torch.testing.assert_close(chain(x), found)
    assert len(paths) == 3


@given(chain=chains())
def test_a_cached_order_of_contraction_agrees_with_torch(chain: Any) -> None:
    """Values, gradients and vmap of `einsum`, by which maps are evaluated; the second call uses the cached order."""
    maps, text, _ = chain
    tensors = [f.tensor.requires_grad_() for f in maps]
    left, result = text.split("->")
    pattern = f"{', '.join(' '.join(axes) for axes in left.split(','))} -> {' '.join(result)}"
    expected = torch.einsum(text, *tensors)
    for _ in range(2):
        found = einsum(*tensors, pattern)
        torch.testing.assert_close(found, expected)
        both = [torch.autograd.grad(each.sin().sum(), tensors, retain_graph=True) for each in (found, expected)]
        torch.testing.assert_close(*both)
    many = torch.stack([tensors[0], -tensors[0]])
    lifted = torch.vmap(lambda first: einsum(first, *tensors[1:], pattern))(many)
    torch.testing.assert_close(lifted, torch.stack([expected, -expected]))


def test_identities_add_no_factor() -> None:
    plain = LinearMap.identity("a b -> b a", a=2, b=3)
    f = random_map("b a -> c", a=2, b=3, c=4)
    assert len((plain >> f).factors) == 1
    assert len((plain >> f >> LinearMap.identity("c", c=4)).factors) == 1


def test_a_call_is_recorded_with_its_axes(golden: Any) -> None:
    f, g = LinearMap(torch.ones(2, 3, 4), "a -> b c"), LinearMap(torch.ones(3, 5), "b -> d")
    texts = [
        str(trace(f)),
        str(trace(f >> g)),
        str(trace(f.transpose("b"))),
        str(trace(broadcast(f >> g, "a x -> x d c"), sizes={"x": 6})),
        repr(f >> g),
    ]
    golden("algebra/traces.txt", "\n\n".join(texts) + "\n")
    x = torch.rand(2)
    torch.testing.assert_close(trace(f >> g, x)(x), (f >> g)(x))


# --- in torch ---------------------------------------------------------------------------------------------------------


def test_a_map_is_a_circuit() -> None:
    f = random_map("a -> b c", a=2, b=3, c=4)
    found = find_circuit(f)
    assert found is not None
    assert str(found.signature) == "... a -> ... b c"
    x = torch.randn(5, 6, 2, dtype=torch.float64)
    torch.testing.assert_close(f(x), torch.einsum("yxa,abc->yxbc", x, f.tensor))
    torch.testing.assert_close(broadcast(f, "a y -> b c y")(x[0].T), torch.einsum("ya,abc->bcy", x[0], f.tensor))
    with pytest.raises(ShapeError, match="a is 3 here, but 2"):
        f(torch.randn(5, 3, dtype=torch.float64))


def test_gradients_flow_to_the_tensors() -> None:
    a, b = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def run(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        return (LinearMap(a, "i -> j") >> LinearMap(b, "j -> k").transpose("k").transpose("k"))(x)

    assert torch.autograd.gradcheck(run, (a, b, x))
    assert torch.autograd.gradgradcheck(run, (a, b, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    f = LinearMap(torch.ones(2, 3, dtype=dtype), "a -> b")
    assert f(torch.ones(2, dtype=dtype)).dtype == dtype
    assert LinearMap.unit("a", 2).outer(f).tensor.dtype == dtype
    assert LinearMap(torch.ones(2, 3, device="meta"), "a -> b").transpose("b").tensor.device.type == "meta"


def test_compiles_fullgraph() -> None:
    weight, other = torch.randn(3, 4), torch.randn(4, 5)
    chain = LinearMap(weight, "a -> b") >> LinearMap(other, "b -> c")
    x = torch.randn(2, 3)
    expected = chain(x)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: chain(x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("strict", [False, True])
def test_exports(strict: bool) -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 5))
            self.f = LinearMap(self.first, "a -> b") >> LinearMap(self.second, "b -> c")

        def forward(self, x: Tensor) -> Tensor:
            return self.f(x)

    model, x = Chain(), torch.randn(2, 3)
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,), strict=strict).module()(x), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)), copy.copy])
@pytest.mark.parametrize("read", [lambda f: f(torch.ones(2)), lambda f: f.circuit, lambda f: f.tensor])
def test_a_copy_computes_with_its_own_tensors_also_after_a_first_call(copied: Any, read: Any) -> None:
    f = LinearMap(torch.ones(2, 3), "a -> b")
    read(f)
    g = copied(f)
    with torch.no_grad():
        g.factors[0][0].mul_(2)
    assert torch.equal(g(torch.ones(2)), torch.ones(2) @ g.tensor)
    assert torch.equal(f(torch.ones(2)), torch.ones(2) @ f.tensor)
    assert (f == g) == (copied is copy.copy)


def test_a_copied_module_with_a_map_computes_with_its_own_tensors() -> None:
    class Applied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 3))
            self.map = LinearMap(self.weight, "a -> b")

        def forward(self, x: Tensor) -> Tensor:
            return self.map(x)

    first = Applied()
    first(torch.ones(2))
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.weight.mul_(3)
    assert torch.equal(second(torch.ones(2)), torch.full((3,), 6.0))


# --- as_linear --------------------------------------------------------------------------------------------------------


def signed(text: str, f: Any, **options: Any) -> Any:
    return circuit(text, **options)(f)


CASES: dict[str, Callable[[], tuple[Any, dict[str, int]]]] = {
    "linear layer": lambda: (signed("... m -> ... k", nn.Linear(3, 4, bias=False), fixed={"m": "in_features"}), {}),
    "convolution": lambda: (signed("c w -> k w'", nn.Conv1d(2, 3, 3, bias=False)), {"c": 2, "w": 5}),
    "transpose": lambda: (signed("a b -> b a", lambda x: x.T), {"a": 2, "b": 3}),
    "cumulative sum": lambda: (signed("a -> a", lambda x: x.cumsum(0)), {"a": 4}),
    "trace": lambda: (signed("a b -> ", lambda x: x.diagonal().sum()), {"a": 3, "b": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_linear_circuit_becomes_a_map(name: str) -> None:
    f, sizes = CASES[name]()
    found = as_linear(f, **sizes)
    shape = [found.sizes[wire].size for wire in found.wires[: len(found.inputs)]]
    for _ in range(3):
        x = torch.randn(shape)
        torch.testing.assert_close(found(x), f(x))


def test_gradients_of_the_map_of_a_module_flow_to_its_weights() -> None:
    layer = signed("m -> k", nn.Linear(3, 4, bias=False), fixed={"m": "in_features"})
    assert as_linear(layer) == LinearMap(layer.weight.T, "m -> k")
    as_linear(layer).tensor.sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones(4, 3))


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda x: x + 1, "it takes zero to 1.0"),
        (lambda x: x * x, r"f\(1 x \+ 1 y\) is not"),
        (torch.relu, r"f\(1 x \+ 1 y\) is not|f\(-1 x"),
        (lambda x: x.clamp(-40, 40), r"f\(64 x"),
        (torch.abs, "is not"),
        (lambda x: x.sort().values, "is not"),
    ],
)
def test_a_nonlinear_circuit_is_refused_with_the_values(f: Any, why: str) -> None:
    torch.manual_seed(1)
    with pytest.raises(CircuitError, match=why):
        as_linear(signed("a -> a", f), a=5)


def test_linear_functions_of_many_sizes_are_not_refused() -> None:
    for case in range(100):
        torch.manual_seed(case)
        weight = torch.randn(case % 7, case % 5) * 10.0 ** (case % 9 - 4)
        assert not nonlinearity(lambda x, w=weight: x @ w, torch.randn(case % 7), torch.randn(case % 7))


def test_as_linear_names_a_missing_size_or_signature() -> None:
    with pytest.raises(CircuitError, match=r"needs the size of a: as_linear\(f, a=3\)"):
        as_linear(signed("a -> a", lambda x: x))
    with pytest.raises(SignatureError, match="has no signature"):
        as_linear(torch.sin, a=3)
    with pytest.raises(SignatureError, match="one tensor in and one out"):
        as_linear(attention, y=2, x=2, k=2)


def test_an_axis_is_not_contracted_with_itself() -> None:
    f = random_map("a -> b", a=2, b=3)
    for name in ("a", "b"):
        with pytest.raises(SignatureError, match=f"contract takes two axes of a -> b, and {name} is one"):
            f.contract(name, name)
    with pytest.raises(SignatureError, match="a is on both sides"):
        random_map("a -> a", a=2).contract("a", "a")
    torch.testing.assert_close((LinearMap.identity("-> a", a=2) >> f).tensor, f.tensor.sum(0))


def test_an_inner_product_needs_an_output_in_common() -> None:
    f, g = random_map("a -> b", a=2, b=3), random_map("c -> d", c=4, d=5)
    for other in (g, g.named("b -> d"), g.transpose("c")):
        with pytest.raises(SignatureError, match="inner: no output of a -> b is an output of"):
            f.inner(other)
    assert str(f.inner(random_map("b ->", b=3)).signature) == "a ->"
    assert str(random_map("a ->", a=2).inner(random_map("-> c", c=2)).signature) == "a -> c"


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_of_refused_maps(golden: Any) -> None:
    f = random_map("a -> b c", a=2, b=3, c=4)
    faults: list[Callable[[], Any]] = [
        lambda: LinearMap(torch.ones(2, 3), "a -> b c"),
        lambda: LinearMap(torch.ones(2, 3), "a, b -> "),
        lambda: LinearMap(torch.ones(2, 6), "a -> (b c)"),
        lambda: LinearMap(torch.ones(2, 3, 3), "a -> b b"),
        lambda: LinearMap(torch.ones(2, 3), "a -> a"),
        lambda: f >> random_map("d -> e", d=2, e=2),
        lambda: f >> random_map("b -> e", b=2, e=2),
        lambda: f >> random_map("b -> c", b=3, c=4),
        lambda: f.outer(random_map("d -> b", d=2, b=3)),
        lambda: f.transpose("d"),
        lambda: random_map("a -> a", a=2).transpose("a"),
        lambda: f.contract("b", "c"),
        lambda: f.contract("b"),
        lambda: f.named("a -> b"),
        lambda: f.ordered("a -> b d"),
        lambda: LinearMap.identity("a b", a=2),
    ]
    words = []
    for fault in faults:
        with pytest.raises((SignatureError, ShapeError)) as caught:
            fault()
        words.append(str(caught.value))
    golden("algebra/refused.txt", "\n\n".join(words) + "\n")


def test_letters_do_not_run_out() -> None:
    """Axes may have names of several letters, which einsum maps to single ones."""
    names = [f"{letter}{number}" for number in range(2) for letter in string.ascii_lowercase[:20]]
    f = LinearMap(torch.ones([1] * 20, dtype=torch.float64), f"-> {' '.join(names[:20])}")
    assert f.named(f"-> {' '.join(names[20:])}")().shape == (1,) * 20
