"""`fit`: what is saved fits into a budget at the least extra FLOPs; compared with brute force and torch's solvers."""

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch._activation_checkpointing import knapsack

from circuits import CircuitError, Diagram, backward, circuit, count, einsum, fit, forward_backward, models, trace
from circuits.autodiff import Candidates, schedule
from circuits.cost import recompute_graph
from circuits.cost.fit import _bytes
from circuits.cost.least_cost import least_bytes, least_cost
from circuits.cost.recompute_graph import Graph, Problem, Statistic, Step
from circuits.cost.recompute_problem import work_of
from models.attention import attention


def r(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random numbers of this shape and dtype."""
    return torch.randn(shape, dtype=dtype)


# The search, in numbers -----------------------------------------------------------------------------------------------


def a_problem(case: int) -> Problem:
    """A random forward pass of 3 to 9 steps; each reads some of the values before it and makes one or two."""
    rng = random.Random(case)
    values, steps, sizes = [0, 1], list[Step](), {0: rng.randint(1, 9), 1: rng.randint(1, 9)}
    for _ in range(rng.randint(3, 9)):
        reads = frozenset(rng.sample(values, rng.randint(1, min(3, len(values)))))
        makes = {len(values) + i: rng.randint(1, 9) for i in range(rng.choice([1, 1, 1, 2]))}
        choice: Any = rng.choice(["either", "either", "either", "free", "never"])
        steps.append(Step(makes, reads, 0 if choice == "free" else rng.randint(0, 20), choice))
        values += makes
        sizes |= makes
    wanted = frozenset(rng.sample(values, rng.randint(1, len(values))))
    statistics = []
    for i, step in enumerate(steps):
        made = {number: j for j, other in enumerate(steps) for number in other.makes}
        scores = [number for number in step.reads if number in made and steps[made[number]].choice != "never"]
        if step.choice == "either" and scores and rng.random() < 0.3:
            statistics.append(Statistic(i, frozenset(scores), rng.randint(1, 5)))
    return Problem(steps, wanted, {number: sizes[number] for number in (0, 1)}, statistics)


def bytes_and_cost(problem: Problem, named: set[int]) -> tuple[int, int]:
    """What a choice saves and costs, straight from the last step to the first."""
    wanted, saved, cost, again = set(problem.wanted), 0, 0, set[int]()
    for i, step in reversed([*enumerate(problem.steps)]):
        if wanted & step.makes.keys():
            if step.choice == "free" or i in named:
                wanted = (wanted - step.makes.keys()) | step.reads
                cost, again = cost + step.cost, again | {i}
            else:
                saved += sum([size for number, size in step.makes.items() if number in wanted])
    saved += sum([size for number, size in problem.inputs.items() if number in wanted])
    for each in problem.statistics:
        makers = {i for i, step in enumerate(problem.steps) if each.values & step.makes.keys()}
        saved += each.bytes if each.step in again and makers <= again else 0
    return saved, cost


def all_choices(problem: Problem) -> list[tuple[int, int]]:
    either = [i for i, step in enumerate(problem.steps) if step.choice == "either"]
    subsets = itertools.chain(*[itertools.combinations(either, n) for n in range(len(either) + 1)])
    return [bytes_and_cost(problem, set(subset)) for subset in subsets]


@pytest.mark.parametrize("case", range(150))
def test_the_search_finds_what_brute_force_finds_at_every_budget(case: int) -> None:
    problem = a_problem(case)
    choices, graph = all_choices(problem), Graph(problem)
    fewest = min(choices)
    assert least_bytes(graph)[1:3] == fewest
    assert least_cost(graph, fewest[0] - 1) is None
    before = None
    for budget in range(fewest[0], max(choices)[0] + 2):
        found = least_cost(graph, budget)
        assert found is not None
        assert found.cost == found.bound == min([cost for size, cost in choices if size <= budget])
        named = {i for i in found.steps if problem.steps[i].choice == "either"}
        assert bytes_and_cost(problem, named) == (found.bytes, found.cost)
        assert found.bytes <= budget
        assert before is None or found.cost <= before
        before = found.cost


def test_where_paths_or_states_are_too_many_the_bound_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found still fits, and the bound is below the least cost."""
    bounds = 0
    for case in range(60):
        problem = a_problem(case)
        choices = all_choices(problem)
        budget = (min(choices)[0] + max(choices)[0]) // 2
        least = min([cost for size, cost in choices if size <= budget])
        few = least_cost(Graph(problem), budget, most=1)
        monkeypatch.setattr(recompute_graph, "MOST_STATES", 1)
        narrow = least_cost(Graph(problem), budget)
        monkeypatch.undo()
        for found in (few, narrow):
            assert found is None or (found.bytes <= budget and found.bound <= least <= found.cost)
        bounds += few is not None and few.bound < few.cost
    assert bounds > 0


# Small circuits, against all subsets of their operations --------------------------------------------------------------


def choices_of(diagram: Diagram) -> list[tuple[int, int, int]]:
    """The bytes, FLOPs and elements of every choice, by the partition itself."""
    candidates = Candidates.of_diagram(diagram)
    work = work_of(diagram, candidates)
    able = [box for box in candidates.boxes if candidates.is_repeatable(box) and not candidates.is_free(box)]
    found = []
    for subset in itertools.chain(*[itertools.combinations(able, n) for n in range(len(able) + 1)]):
        chosen = schedule(candidates, {id(box): box for box in subset})
        places = [candidates.place(box) for box in chosen.recomputed if not candidates.is_free(box)]
        flops, elements = [
            sum([getattr(work[i], name) for i in places if i is not None]) for name in ("flops", "elementwise")
        ]
        found.append((_bytes(candidates, chosen), flops, elements))
    return found


def is_brute_force(diagram: Diagram) -> None:
    """At every number of bytes that some choice saves, `fit` takes the fewest FLOPs, and then the fewest elements."""
    choices = choices_of(diagram)
    budgets = sorted({size for size, *_ in choices})
    for budget in budgets[:: max(1, len(budgets) // 12)]:
        found = fit(budget)(diagram)
        least = min([(flops, elements) for size, flops, elements in choices if size <= budget])
        assert ((found.flops, found.elementwise), found.is_least) == (least, True)
        assert found.bytes <= budget
    with pytest.raises(CircuitError, match=f"saves at least {budgets[0]:,} bytes for backward, which are more than"):
        fit(budgets[0] - 1)(diagram)


@circuit("b m, m h, h m -> b m")
def two_layers(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """A small network."""
    return einsum(einsum(x, first, "b m, m h -> b h").tanh().exp(), second, "b h, h m -> b m").sin()


def split(x: Tensor) -> Tensor:
    """An operation with two results, and one that draws random numbers."""
    left, right = (x.sin() @ x.mT).chunk(2)
    return F.dropout(left.exp() * right.softmax(-1), 0.5).cos()


def overwriting(x: Tensor, m: Tensor) -> Tensor:
    """The operations that read `angle` before it is overwritten cannot run again."""
    angle = m * 2
    y = (x * angle.sin()).exp()
    with torch.no_grad():
        angle += 1
    return (y * angle).sin()


def viewed_scores(x: Tensor, y: Tensor) -> Tensor:
    """The scores have other sizes than the weights, of which they are a view."""
    return (x @ y).mul(2).view(2, 3, 7).softmax(-1).view(6, 7) @ y.mT


SMALL: Mapping[str, Callable[[], Diagram]] = {
    "attention": lambda: backward(attention, r(5, 4), r(7, 4), r(7, 4)),
    "two layers": lambda: backward(two_layers, r(3, 4), r(4, 9), r(9, 4)),
    "mlp": lambda: backward(
        nn.Sequential(nn.Linear(4, 9), nn.GELU(), nn.LayerNorm(9), nn.Linear(9, 2)), r(5, 4).float()
    ),
    "split": lambda: backward(split, r(6, 4)),
    "overwriting": lambda: backward(overwriting, r(3), r(3), wrt="x"),
    "viewed scores": lambda: backward(viewed_scores, r(6, 5), r(5, 7)),
}


@pytest.mark.parametrize("name", SMALL)
def test_fit_finds_what_brute_force_finds(name: str) -> None:
    is_brute_force(SMALL[name]())


def a_function(case: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A random function of two square matrices."""
    rng = random.Random(case)
    operations = [
        lambda a, b: a @ b, lambda a, b: a * b, lambda a, b: a + b, lambda a, b: einsum(a, b, "i k, j k -> i j"),
        lambda a, b: a.sin(), lambda a, b: a.exp().mT, lambda a, b: a.softmax(-1), lambda a, b: a.sum(0) * b,
    ]  # fmt: skip
    plan = [(rng.choice(operations), rng.random(), rng.random()) for _ in range(rng.randint(3, 6))]

    def run(x: Tensor, y: Tensor) -> Tensor:
        values = [x, y]
        for operation, first, second in plan:
            values.append(operation(values[int(first * len(values))], values[int(second * len(values))]))
        return values[-1] + values[-2]

    return run


@pytest.mark.parametrize("case", [*range(4), *[pytest.param(case, marks=pytest.mark.slow) for case in range(4, 40)]])
def test_random_functions_agree_with_brute_force(case: int) -> None:
    is_brute_force(backward(a_function(case), r(3, 3), r(3, 3)))


# Gradients, bytes and FLOPs are those that were promised --------------------------------------------------------------


def _encoder_layer(dropout: float = 0.0) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, dropout, batch_first=True).double()


MODELS: Mapping[str, Callable[[], tuple[Any, tuple[Tensor, ...]]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 9), nn.GELU(), nn.Linear(9, 2)), (r(5, 4),)),
    "attention": lambda: (models.MultiHeadAttention(m=16, k=4, h=3), (r(5, 16), r(6, 16))),
    "encoder layer": lambda: (_encoder_layer(), (r(2, 5, 16),)),
    "transformer": lambda: (
        models.Transformer(m=16, k=4, h=2, f=24, encoder_depth=1, decoder_depth=1), (r(5, 16), r(6, 16)),
    ),
}  # fmt: skip


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("attention", "encoder layer", "transformer")]


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", *SLOW])
def test_gradients_do_not_change_and_bytes_and_flops_are_as_promised(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model = model.double().eval()
    diagram = trace(model, *inputs)
    plain = forward_backward(diagram)
    outputs, saved = plain.forward(*inputs)
    back = torch.randn_like(outputs)
    expected, before = plain.reverse(saved, back), count(diagram, backward=True).total.flops
    least = int(_least(diagram))
    assert isinstance(plain.bytes, int)
    for budget in (plain.bytes, (2 * plain.bytes + least) // 3, (plain.bytes + 2 * least) // 3, least):
        halves = forward_backward(diagram, recompute=fit(budget))
        chosen: Any = halves.choice
        assert halves.bytes == chosen.bytes <= budget
        assert chosen.bytes_before == plain.bytes
        _, saved = halves.forward(*inputs)
        assert sum([each.numel() * each.element_size() for each in saved]) == halves.bytes
        # float64: sums in another order, and a softmax from its logsumexp, differ by 1e-16 for each of 1e3 terms
        torch.testing.assert_close(halves.reverse(saved, back), expected, rtol=1e-9, atol=1e-12)
        assert count(diagram, backward=True, recompute=fit(budget)).total.flops == before + chosen.flops
        assert [box for box in halves.recomputed if box in [row.box for row in chosen.rows]] == [
            row.box for row in chosen.rows
        ]


def _least(diagram: Diagram) -> str:
    """The fewest bytes that can be saved, by the message of the refusal."""
    with pytest.raises(CircuitError) as caught:
        fit(1)(backward(diagram))
    return str(caught.value).partition("at least ")[2].partition(" bytes")[0].replace(",", "")


@pytest.mark.slow
def test_random_masks_are_saved() -> None:
    """The second run of a dropout would draw other numbers."""
    model, x = _encoder_layer(0.5).train(), r(2, 5, 16)
    halves = forward_backward(model, x, recompute=fit(int(_least(trace(model, x)))))
    torch.manual_seed(3)
    outputs, saved = halves.forward(x)
    plain = forward_backward(model, x)
    torch.manual_seed(3)
    same, every = plain.forward(x)
    torch.testing.assert_close(outputs, same)
    back = torch.randn_like(outputs)
    torch.testing.assert_close(halves.reverse(saved, back), plain.reverse(every, back))


@pytest.mark.slow
def test_a_budget_that_fits_recomputes_nothing_and_a_larger_one_never_costs_more() -> None:
    diagram = backward(_encoder_layer(), r(2, 5, 16))
    before = fit("1 TB")(diagram)
    assert (len(before), before.flops, before.elementwise, before.bytes) == (0, 0, 0, before.bytes_before)
    assert len(fit(before.bytes_before)(diagram)) == 0
    flops = before.flops
    for budget in range(before.bytes_before, before.bytes_before // 3, -before.bytes_before // 10):
        found = fit(budget)(diagram)
        assert found.flops >= flops
        flops = found.flops
    assert flops > 0


@pytest.mark.slow
def test_the_choice_is_the_same_each_time() -> None:
    first, second = [fit(4000)(backward(_encoder_layer(), r(2, 5, 16))) for _ in range(2)]
    assert str(first) == str(second)
    assert [row.box.label for row in first.rows] == [row.box.label for row in second.rows]


# Beside torch's own solvers -------------------------------------------------------------------------------------------

Solver = Callable[[list[float], list[float], float], tuple[float, list[int], list[int]]]


def by_torch(diagram: Diagram, solver: Solver, share: float) -> tuple[int, int, tuple[int, int]]:
    """The budget, and the bytes, FLOPs and elements of what a knapsack solver of torch makes of it.

    As in torch's partitioner each result is an item with its bytes and the FLOPs of its operation, which are saved if
    the item is; the others are recomputed, from what is saved. The budget is that share of all items, and beside it
    what is saved and is none of them.
    """
    candidates = Candidates.of_diagram(diagram)
    work = work_of(diagram, candidates)
    able = [box for box in candidates.boxes if candidates.is_repeatable(box) and not candidates.is_free(box)]
    sizes = [sum([_size(candidates, value.number) for value in box.outputs]) for box in able]
    times = [work[_place(candidates, box)].flops for box in able]
    _, saved, _ = solver([size / sum(sizes) for size in sizes], [each / sum(times) for each in times], share)
    named = [box for i, box in enumerate(able) if i not in saved]
    chosen = schedule(candidates, {id(box): box for box in named})
    items = {value.number for box in able for value in box.outputs}
    others = _bytes(candidates, chosen) - sum([_size(candidates, number) for number in chosen.saved & items])
    again = [work[_place(candidates, box)] for box in chosen.recomputed if not candidates.is_free(box)]
    costs = sum([each.flops for each in again]), sum([each.elementwise for each in again])
    return int(share * sum(sizes)) + others, _bytes(candidates, chosen), costs


def _place(candidates: Candidates, box: Any) -> int:
    place = candidates.place(box)
    assert place is not None
    return place


def _size(candidates: Candidates, number: int) -> int:
    value = candidates.values[number]
    return int(torch.Size([int(size) for size in value.sizes]).numel()) * value.dtype.itemsize


def _language_model() -> Diagram:
    model = models.LanguageModel(vocabulary=50, m=32, k=8, h=4, f=64, depth=2).eval()
    return backward(model, torch.randint(50, (2, 24)))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["greedy_knapsack", "dp_knapsack", "ilp_knapsack"])
def test_no_solver_of_torch_takes_fewer_flops(solver: str) -> None:
    """Neither for as many bytes as it saves, nor for its budget, of which it spends some on what need not be saved.

    The exact ones take no more FLOPs than `fit`, but recompute all that has none, as they do not count elements.
    """
    if solver == "ilp_knapsack":
        pytest.importorskip("scipy")
    diagram = _language_model()
    fewer = 0
    for share in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        budget, size, costs = by_torch(diagram, getattr(knapsack, solver), share)
        for limit in (size, budget):
            found = fit(limit)(diagram)
            assert found.bytes <= limit
            assert found.is_least
            assert (found.flops, found.elementwise) <= costs
            fewer += (found.flops, found.elementwise) < costs
    assert fewer >= 6


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2 GB", 2 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("1.5kB", 1500),
        ("7", 7),
        ("3 B", 3),
        (12, 12),
        ("0.5 TiB", 2**39),
    ],
)
def test_budgets_are_read(text: str | int, size: int) -> None:
    assert fit(text).budget == size


@pytest.mark.parametrize("text", ["", "GB", "2 gb", "2 Gb", "2 GB more", "-1 GB", "1e9", -1, True, 2.5, None])
def test_other_budgets_are_refused(text: Any) -> None:
    with pytest.raises(
        CircuitError, match=r"expected a number of bytes, or text as '2 GB', got .*; the units are B, kB"
    ):
        fit(text)


@pytest.mark.slow
def test_free_axes_are_refused_with_the_sizes_to_give() -> None:
    with pytest.raises(CircuitError, match=r"k, x, y of attention are free: give sizes, sizes=\{'k': \.\.\., 'x'"):
        forward_backward(attention, recompute=fit("1 GB"))


def test_what_reads_a_tensor_that_is_overwritten_later_is_saved() -> None:
    """The counter takes fewer bytes than its sine and cosine, but it has changed before the reverse pass."""

    def counted(x: Tensor, counter: Tensor) -> Tensor:
        y = x * counter.sin() + x.exp() * counter.cos()
        with torch.no_grad():
            counter += 1
        return y.exp()

    x, counter, back = r(3), r(3), r(3)
    found = fit(4 * 24)(backward(counted, x, counter, wrt="x"))
    assert {row.box.label for row in found.rows}.isdisjoint({"sin", "cos"})
    with pytest.raises(CircuitError, match="at least 72 bytes"):
        fit(2 * 24)(backward(counted, x, counter, wrt="x"))
    plain, halves = [forward_backward(counted, x, counter, wrt="x", recompute=each) for each in ((), fit(3 * 24))]
    expected = plain.reverse(plain.forward(x, counter.clone())[1], back)
    torch.testing.assert_close(halves.reverse(halves.forward(x, counter.clone())[1], back), expected)


def test_a_diagram_that_is_no_gradient_is_refused() -> None:
    with pytest.raises(
        CircuitError, match=r"expected a forward pass and its reverse pass .* call backward\(attention\)"
    ):
        fit("1 GB")(trace(attention))


def test_an_operation_without_a_formula_is_saved_and_named() -> None:
    def ordered(x: Tensor) -> Tensor:
        return x.sin().sort().values.sin().exp()

    diagram = backward(ordered, r(10))
    found = fit(int(_least(trace(ordered, r(10)))))(diagram)
    assert found.unknown == ("sort over 10",)
    assert not [row for row in found.rows if row.box.label.startswith("sort")]
    assert "saved, since no formula has their FLOPs: sort over 10" in str(found)
