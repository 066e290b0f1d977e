# A submodule or a buffer is a Tensor or a Module to pyright, and torch's private names are used here.
# pyright: reportCallIssue=false
"""einsum, rearrange, reduce, repeat compared with einops; names with primes; an axis of size 1 is not broadcast."""

import collections
import random
from collections.abc import Callable
from typing import Any

import einops
import numpy
import pytest
import torch
from torch import Tensor

from circuits import CircuitError, ShapeError, SignatureError, einsum, rearrange, reduce, repeat, trace
from circuits.verbs import plan

NAMES = ["b", "y", "x", "m", "h'", "h", "k2"]


def plainly(pattern: str) -> str:
    """Return a pattern for einops, which does not support primes."""
    return pattern.replace("h'", "hp")


def einsum_case(case: int) -> tuple[str, list[Tensor]]:
    """Return a pattern, and tensors of integers that fit it, whose sums are exact in any order."""
    rng = random.Random(case)
    sizes = {name: rng.randint(1, 4) for name in NAMES}
    rest = [rng.randint(1, 3) for _ in range(rng.randint(0, 2))]
    operands = []
    for _ in range(rng.randint(1, 3)):
        operands.append((rng.random() < 0.5, rng.sample(NAMES, rng.randint(1, 4))))
    known = sorted({name for _, names in operands for name in names})
    out = rng.sample(known, rng.randint(0, len(known)))
    leads = any(leading for leading, _ in operands)
    texts = [" ".join([*["..."] * leading, *names]) for leading, names in operands]
    tensors = [
        torch.tensor([float(rng.randint(-3, 3)) for _ in range(product(shape))]).reshape(shape)
        for shape in [[*rest * leading, *[sizes[name] for name in names]] for leading, names in operands]
    ]
    return f"{', '.join(texts)} -> {' '.join([*['...'] * leads, *out])}", tensors


def product(shape: list[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


@pytest.mark.parametrize("case", range(60))
def test_einsum_is_einops(case: int) -> None:
    pattern, tensors = einsum_case(case)
    assert torch.equal(einsum(*tensors, pattern), einops.einsum(*tensors, plainly(pattern)))


@pytest.mark.parametrize("case", range(60))
def test_einsum_refuses_two_sizes_of_any_axis(case: int) -> None:
    pattern, tensors = einsum_case(case)
    stated = [[word for word in text.split() if word != "..."] for text in pattern.split(" -> ")[0].split(", ")]
    for place, names in enumerate(stated):
        for axis, name in enumerate(reversed(names), start=1):
            twice = sum(name in others for others in stated) > 1
            shape = list(tensors[place].shape)
            shape[-axis] = 1 if shape[-axis] > 1 else 2
            changed = [torch.ones(shape) if each == place else tensor for each, tensor in enumerate(tensors)]
            if not twice:
                einsum(*changed, pattern)
                continue
            with pytest.raises(ShapeError, match=rf"(?m)    {name} is \d+ here, but \d+ in tensor \d+(; .*)?$"):
                einsum(*changed, pattern)


def shaping_case(case: int) -> tuple[str, Tensor, dict[str, int]]:
    """Return a pattern that groups and permutes axes, a tensor, and the sizes that split its groups."""
    rng = random.Random(case)
    names = rng.sample(NAMES, rng.randint(1, 5))
    sizes = {name: rng.randint(1, 4) for name in names}

    def grouped(order: list[str]) -> list[list[str]]:
        groups: list[list[str]] = []
        for name in order:
            if groups and rng.random() < 0.4:
                groups[-1].append(name)
            else:
                groups.append([name])
        return groups

    left, right = grouped(names), grouped(rng.sample(names, len(names)))
    text = [" ".join([each[0] if len(each) == 1 else f"({' '.join(each)})" for each in side]) for side in (left, right)]
    shape = [product([sizes[name] for name in each]) for each in left]
    given = {name: sizes[name] for each in left for name in each[1:]}
    return " -> ".join(text), torch.arange(1.0, product(shape) + 1).reshape(shape), given


@pytest.mark.every(6)
@pytest.mark.parametrize("case", range(60))
def test_rearrange_reduce_and_repeat_are_einops(case: int) -> None:
    pattern, x, sizes = shaping_case(case)
    plain = {name.replace("'", "p"): size for name, size in sizes.items()}
    assert torch.equal(rearrange(x, pattern, **sizes), einops.rearrange(x, plainly(pattern), **plain))
    left, right = pattern.split(" -> ")
    assert torch.equal(
        repeat(x, f"{left} -> n {right}", n=3, **sizes), einops.repeat(x, plainly(f"{left} -> n {right}"), n=3, **plain)
    )
    for operation in ("sum", "max", "mean", "min", "prod"):
        expected = einops.reduce(x, f"{plainly(left)} -> ", operation, **plain)
        assert torch.equal(reduce(x, f"{left} -> ", operation, **sizes), expected)


@pytest.mark.every(3)
@pytest.mark.parametrize("names", [("h'", "hPrime"), ("h''", "hPrime'"), ("h'", "hPrimePrime"), ("hPrime'", "h'")])
def test_an_axis_with_a_prime_is_not_the_axis_whose_name_has_the_word(names: tuple[str, str]) -> None:
    one, two = names
    x, y = torch.rand(3), torch.rand(2)
    pattern = f"{one}, {two} -> {one} {two}"
    assert torch.equal(einsum(x, y, pattern), torch.outer(x, y))
    assert rearrange(x, f"({one} {two}) -> {two} {one}", **{one: 3}).shape == (1, 3)
    assert rearrange(x, f"({one} {two}) -> {two} {one}", **{two: 3}).shape == (3, 1)
    assert repeat(y, f"{two} -> {one} {two}", **{one: 3}).shape == (3, 2)
    assert reduce(torch.outer(x, y), f"{one} {two} -> {two}", "sum").shape == (2,)
    assert torch.equal(
        torch.compile(lambda a, b: einsum(a, b, pattern), backend="eager", fullgraph=True)(x, y), torch.outer(x, y)
    )


def test_names_are_normalized_as_python_does() -> None:
    """The micro sign and the Greek letter are one identifier, and one axis."""
    micro, mu = "\u00b5", "\u03bc"
    x = torch.rand(6)
    for name in (micro, mu):
        assert rearrange(x, f"({name} k) -> {name} k", µ=2).shape == (2, 3)
        assert rearrange(x, f"({name} k) -> {name} k", **{micro: 2}).shape == (2, 3)
        assert repeat(x, f"k -> k {name}'", **{"µ'": 2}).shape == (6, 2)
    torch.testing.assert_close(einsum(x, x, f"{micro}, {mu} -> "), x @ x)
    with pytest.raises(ShapeError):
        einsum(x, torch.rand(2), f"{micro}, {mu} -> ")
    diagram = trace(lambda x: rearrange(x, f"({micro} k) -> {mu} k", µ=2), x)
    assert torch.equal(diagram(x), x.view(2, 3))
    with pytest.raises((einops.EinopsError, SignatureError)):
        rearrange(x, "(h\u00b2 h2) -> h2 h\u00b2", h2=2)


def test_names_with_primes_are_distinct() -> None:
    x = torch.rand(2, 3)
    torch.testing.assert_close(einsum(x, x, "h w, h' w -> h h'"), x @ x.T)
    assert torch.equal(rearrange(x, "h h' -> h' h"), x.T)
    assert torch.equal(reduce(x, "h' h'' -> h''", "sum"), x.sum(0))
    assert repeat(x, "h h' -> h h' k", k=4).shape == (2, 3, 4)


@pytest.mark.smoke
def test_a_list_of_tensors_is_stacked() -> None:
    parts = [torch.rand(2), torch.rand(2)]
    assert torch.equal(rearrange(parts, "n k -> n k"), torch.stack(parts))


REFUSED: dict[str, Callable[[], Any]] = {
    "one_stretched": lambda: einsum(torch.ones(5, 8), torch.ones(5, 1), "y m, x m -> y x"),
    "two_sizes": lambda: einsum(torch.ones(5, 8), torch.ones(6, 7), torch.ones(8), "y m, x m, m -> y x"),
    "rest": lambda: einsum(torch.ones(2, 5, 8), torch.ones(3, 5, 8), "... y m, ... x m -> ... y x"),
    "too_few_axes": lambda: einsum(torch.ones(8), torch.ones(5, 8), "y m, x m -> y x"),
    "too_many_axes": lambda: einsum(torch.ones(2, 5, 8), torch.ones(5, 8), "y m, x m -> y x"),
    "wrong_count": lambda: einsum(torch.ones(5, 8), "y m, x m -> y x"),
    "prime": lambda: einsum(torch.ones(5, 8), torch.ones(5, 7), "h' w', h w' -> h h'"),
    "group": lambda: einsum(torch.ones(5, 8), "y (h k) -> y h k"),
    "pattern_first": lambda: einsum("y m, m -> y", torch.ones(5, 8), torch.ones(8)),
    "no_arrow": lambda: einsum(torch.ones(5, 8), "y m"),
    "new_axis": lambda: einsum(torch.ones(5, 8), "y m -> y n"),
    "new_prime": lambda: einsum(torch.ones(5, 8), "y m -> y m'"),
    "axis_twice": lambda: einsum(torch.ones(5), "y -> y y"),
    "two_outputs": lambda: einsum(torch.ones(5, 8), "y m -> y, m"),
    "number_out": lambda: einsum(torch.ones(5), "y -> y 1"),
    "arithmetic_out": lambda: einsum(torch.ones(6), "y -> y/2"),
    "group_out": lambda: einsum(torch.ones(5, 8), "y m -> (y m)"),
}


BAD_TEXTS = (
    *("group", "pattern_first", "no_arrow", "new_axis", "new_prime", "axis_twice", "two_outputs"),
    *("number_out", "arithmetic_out", "group_out"),
)


@pytest.mark.parametrize("name", REFUSED)
def test_messages_of_invalid_einsums(name: str, golden: Any) -> None:
    with pytest.raises(CircuitError) as caught:
        REFUSED[name]()
    golden(f"verbs/einsum_{name}.txt", f"{caught.value}\n")
    assert isinstance(caught.value, SignatureError if name in BAD_TEXTS else ShapeError)


def all_four(x: Tensor, weight: Tensor) -> Tensor:
    heads = rearrange(einsum(x, weight, "y m, m d' -> y d'"), "y (h k) -> h y k", k=2)
    return repeat(reduce(heads, "h y k -> h y", "mean"), "h y -> h y n", n=2)


def by_hand(x: Tensor, weight: Tensor) -> Tensor:
    heads = (x @ weight).unflatten(-1, (-1, 2)).permute(1, 0, 2).mean(-1)
    return heads[..., None].expand(*heads.shape, 2)


X, WEIGHT = torch.randn(5, 8), torch.randn(8, 6)


@pytest.mark.slow
def test_under_compile_in_one_graph() -> None:
    compiled = torch.compile(all_four, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (5, 7):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x, WEIGHT), by_hand(x, WEIGHT))


def test_a_bad_einsum_under_compile_has_its_message() -> None:
    def bad(x: Tensor, weight: Tensor) -> Tensor:
        return einsum(x, weight, "y m, m d -> y d")

    with pytest.raises(Exception, match=r"m is 7 here, but 8 in tensor 0"):
        torch.compile(bad, backend="eager", fullgraph=True)(X, torch.ones(7, 6))


@pytest.mark.slow
def test_under_vmap_grad_and_export() -> None:
    batch = torch.randn(3, 5, 8)
    torch.testing.assert_close(
        torch.vmap(all_four, (0, None))(batch, WEIGHT), torch.stack([by_hand(each, WEIGHT) for each in batch])
    )
    slopes = [torch.func.grad(lambda w, f=f: f(X, w).square().sum())(WEIGHT) for f in (all_four, by_hand)]
    torch.testing.assert_close(*slopes)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return all_four(x, WEIGHT)

    exported = torch.export.export(Module(), (X,), dynamic_shapes={"x": {0: torch.export.Dim("y", min=2)}})
    x = torch.randn(9, 8)
    torch.testing.assert_close(exported.module()(x), by_hand(x, WEIGHT))


@pytest.mark.smoke
def test_a_verb_is_one_box_with_its_pattern() -> None:
    diagram = trace(all_four, X, WEIGHT)
    assert [box.label for box in diagram.boxes] == [
        "einsum \"y m, m d' -> y d'\"",
        "rearrange 'y (h k) -> h y k'",
        "reduce 'h y k -> h y'",
        "repeat 'h y -> h y n'",
    ]
    assert torch.equal(diagram(X, WEIGHT), all_four(X, WEIGHT))


@pytest.mark.parametrize("kind", [list, tuple, collections.UserList, collections.deque], ids=lambda kind: kind.__name__)
def test_a_sequence_of_tensors_of_any_class_is_stacked(kind: Any) -> None:
    images = [torch.rand(6, 5) for _ in range(3)]
    stacked = torch.stack(images)
    assert torch.equal(rearrange(kind(images), "c b p -> b p c"), stacked.permute(1, 2, 0))
    assert torch.equal(reduce(kind(images), "c b p -> b", "max"), stacked.amax((0, 2)))
    assert torch.equal(repeat(kind(images), "c b p -> c b p k", k=2), stacked[..., None].expand(-1, -1, -1, 2))


def test_a_tuple_of_tensors_is_recorded_as_a_list_is() -> None:
    images = torch.rand(6, 5), torch.rand(6, 5)
    diagram = trace(lambda x, y: rearrange((x, y), "c b p -> b p c"), *images)
    assert torch.equal(diagram(*images), torch.stack(images, -1))


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64"])
def test_sizes_may_be_integers_of_numpy(kind: str) -> None:
    """A product of two sizes of 200 does not overflow uint8."""
    size = getattr(numpy, kind)(2 if kind == "uint8" else 100)
    x = torch.rand(200, 3)
    assert repeat(x, "y c -> (y k) c", k=size).shape == (200 * int(size), 3)
    assert rearrange(x, "(y k) c -> y k c", k=size).shape == (200 // int(size), int(size), 3)
    assert reduce(x, "(y k) c -> y c", "sum", k=size).shape == (200 // int(size), 3)


@pytest.mark.slow
def test_patterns_take_bounded_memory() -> None:
    limit = plan.MOST_CACHED
    for number in range(limit + 10):
        plan.plan_for(f"a{number} -> a{number}")
        plan.names_for_einops(f"a{number}' -> a{number}'")
    assert plan._make_plan.cache_info().currsize == limit
    assert plan._make_names.cache_info().currsize == limit
