"""`Cost` as data: sizes, groups, order, and its forms; what `count` refuses."""

import csv
import io
import json
import random
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

import models
from circuits import CircuitError, Cost, count, trace, track
from circuits.cost.sizes import Largest, at, terms_of
from tests.conftest import assert_unchanged, snapshot
from tests.cost.claims import Shared, attention, symbol


@pytest.fixture(scope="module")
def cost() -> Cost:
    return count(models.MultiHeadAttention(m=16, k=4, h=2))


@pytest.mark.smoke
def test_formulas_evaluate_to_the_cost_at_these_sizes(cost: Cost) -> None:
    """The cost at sizes is that of a diagram that was recorded with them, in every row and quantity."""
    fixed = count(models.MultiHeadAttention(m=16, k=4, h=2), sizes={"y": 5, "x": 7})
    for one, other in zip(cost.at(y=5, x=7).rows, fixed.rows, strict=True):
        for name in ("multiply_adds", "elementwise", "read", "written", "activations", "peak", "parameters"):
            assert getattr(one, name) == getattr(other, name), (one.label, name)


def test_sizes_given_one_after_the_other_are_given_together(cost: Cost) -> None:
    assert cost.at(y=5).at(x=7).rows == cost.at(x=7, y=5).rows
    assert cost.at(y=5).axes == ("x",)
    assert cost.at(y=1).total.flops == sympy.sympify(cost.total.flops).subs(symbol("y"), 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"z": 3}, "at: there is no free axis z; the free axes are y, x"),
        ({"y": 0}, "at: y has to be a positive number, not 0"),
        ({"y": 2.5}, "at: y has to be a positive number, not 2.5"),
    ],
)
def test_sizes_that_are_none_are_refused(cost: Cost, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError) as caught:
        cost.at(**sizes)
    assert str(caught.value) == message


def test_sizes_at_which_the_diagram_is_another_are_refused() -> None:
    short = count(lambda x: x * 2 if x.shape[0] > 10 else x @ x.t(), axes="n 4")
    with pytest.raises(CircuitError, match="counted for sizes with n > 10, and n = 3 breaks it"):
        short.at(n=3)


def test_sizes_given_one_after_the_other_are_held_to_conditions_on_several() -> None:
    unequal = count(lambda x, y: x + y if x.shape[0] == y.shape[0] else torch.cat([x, y]), axes="a 4, b 4")
    assert unequal.at(a=3).at(b=4).total.written == 4 * 7 * 4
    with pytest.raises(CircuitError, match="counted for sizes with 3 != b, and b = 3 breaks it"):
        unequal.at(a=3).at(b=3)


def test_live_multiply_adds_of_given_sizes_are_whole_numbers() -> None:
    """Those of long sequences have more digits than a float."""
    x = 2**20 + 1
    total = count(F.scaled_dot_product_attention, axes=f"512 8 {x} 64," * 2 + f"512 8 {x} 64", is_causal=True).total
    assert type(total.live_multiply_adds) is int
    assert total.live_multiply_adds == 512 * 8 * 128 * x * (x + 1) // 2


@pytest.mark.parametrize("what", ["circuit", "module", "function", "operation", "path"])
def test_groups_add_up_to_the_total(cost: Cost, what: str) -> None:
    groups = cost.by(what)
    for name in ("multiply_adds", "elementwise", "read", "written", "activations", "parameters"):
        total = sum([getattr(row, name) for row in groups.rows])
        assert sympy.expand(total - getattr(cost.total, name)) == 0, name
    assert max([row.peak for row in groups.at(y=3, x=5).rows]) == cost.at(y=3, x=5).total.peak


def test_operations_of_circuits_are_theirs(cost: Cost) -> None:
    rows = {row.label: row for row in cost.by("circuit").rows}
    assert rows["attention"].flops == 4 * 8 * symbol("x") * symbol("y")
    assert rows["attention"].parameters == 0
    assert rows["MultiHeadAttention"].parameters == 4 * 16 * 8
    assert {row.label: row.calls for row in cost.by("operation").rows}["linear"] == 4


def test_a_shared_module_is_counted_once_beside_its_calls() -> None:
    rows = {row.label: row for row in count(Shared(), axes="b 8").by("path").rows}
    assert (rows["twice"].calls, rows["twice"].parameters, rows["twice"].trained) == (2, 72, 72)
    assert (rows["frozen"].calls, rows["frozen"].parameters, rows["frozen"].trained) == (1, 27, 0)


def test_a_parameter_that_nothing_reads_is_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model.register_parameter("unread", nn.Parameter(torch.zeros(7)))
    assert count(model, axes="b 3").total.parameters == 12 + 7


def test_order_is_that_of_a_column(cost: Cost) -> None:
    rows = cost.at(y=20, x=22).sort("flops").rows
    assert [row.flops for row in rows] == sorted([row.flops for row in rows], reverse=True)
    assert sum([row.flops for row in rows]) == cost.at(y=20, x=22).total.flops


def test_formulas_are_not_ordered(cost: Cost) -> None:
    with pytest.raises(CircuitError, match="sort: flops depends on free axes: give them sizes"):
        cost.sort("flops")


def test_unknown_columns_and_groups_are_refused(cost: Cost) -> None:
    for call in (lambda: cost.sort("time"), lambda: cost.table("time"), lambda: cost.column("time")):
        with pytest.raises(CircuitError, match="a cost has no column 'time'; it has calls, multiply_adds"):
            call()
    with pytest.raises(CircuitError, match="by has to be 'circuit'"):
        cost.by("layer")


def test_csv_has_a_row_for_each_box_and_the_total(cost: Cost) -> None:
    rows = list(csv.DictReader(io.StringIO(cost.at(y=5, x=7).to_csv())))
    assert len(rows) == len(cost.rows) + 1
    assert int(rows[-1]["flops"]) == cost.at(y=5, x=7).total.flops
    assert rows[-1]["box"] == "total"


def test_plain_data_is_json(cost: Cost) -> None:
    data = json.loads(json.dumps(cost.to_dict()))
    assert data["total"]["flops"] == "32*x*y + 512*x + 512*y"
    assert data["axes"] == ["y", "x"]
    assert data["rows"][0]["place"] == []


def test_latex_has_formulas_in_math_mode(cost: Cost) -> None:
    text = cost.to_latex("flops")
    assert text.startswith("\\begin{tabular}{lr}\n & FLOPs \\\\ \\hline\n")
    assert "$" in text
    assert "\\quad Lq Linear & $256 y$ \\\\" in text


def test_the_column_of_a_quantity_has_the_places_of_boxes() -> None:
    diagram = trace(attention)
    column = count(diagram).column("flops")
    assert column.heading == "FLOPs"
    assert set(column) == {(), (0,), (1,), (2,), (3,)}
    assert column[(0,)] + column[(3,)] == column[()]


def test_equal_layers_take_one_row() -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)], nn.Linear(4, 2))
    text = count(model, axes="b 4").table("flops")
    assert text.splitlines()[2].split() == ["0…4", "Linear", "160*b", "×5"]
    assert len(text.partition("\n\n")[0].splitlines()) == 4


def test_what_has_no_formula_is_named_with_its_sizes() -> None:
    text = str(count(lambda x: torch.fft.fft(torch.fft.fft(x).real) @ x.t().to(torch.complex64), axes="8 16"))
    assert text.splitlines()[-1] == "not counted  _fft_r2c 8 16 ×2 (no formula)"


def test_what_cannot_run_without_data_is_named() -> None:
    def chosen(x: Tensor) -> Tensor:
        return x[x[:, 0] > 0] @ x.t()

    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return chosen(x)

    model, x = Chosen(), torch.tensor([[1.0, 2.0], [-1.0, 3.0], [2.0, 5.0]])
    with track(model, to=None) as seen:
        model(x)
    found = count(seen.diagram)
    assert [name for name, _ in found.total.uncounted] == ["index [tensor] 3 2, 3"]
    assert found.total.flops == 2 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count(trace(attention), sizes={"y": 3}), "count: a diagram takes no arguments of trace"),
        (lambda: count(attention, recompute="y x"), "count: recompute and wrt are about the reverse pass"),
    ],
)
def test_what_cannot_be_counted_is_refused(call: Any, message: str) -> None:
    with pytest.raises(CircuitError) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_nothing_is_registered_with_torch() -> None:
    before = dict(flop_registry)
    count(F.scaled_dot_product_attention, axes="b h y k, b h x k, b h x k")
    assert flop_registry == before
    assert torch.ops.aten._scaled_dot_product_flash_attention_for_cpu not in flop_registry


def test_the_largest_of_sums_keeps_all_that_may_be_largest() -> None:
    n, m = symbol("n"), symbol("m")
    found = Largest()
    for size in (n * m, n, 2 * n, m * n + n, 3 * m):
        found.note(terms_of(size))
    assert set(sympy.sympify(found.size).args) == {m * n + n, 3 * m}


@pytest.mark.every(4)
@pytest.mark.parametrize("case", range(50))
def test_the_largest_of_sums_is_the_largest_at_every_size(case: int) -> None:
    rng = random.Random(case)
    axes = [symbol(name) for name in "nmk"]
    products = [
        sympy.Integer(1),
        *axes,
        axes[0] * axes[1],
        axes[1] * axes[2],
        axes[0] * axes[1] * axes[2],
        axes[0] ** 2,
    ]
    sums = [sum([rng.randint(0, 5) * each for each in rng.sample(products, 3)]) for _ in range(6)]
    found = Largest()
    for size in sums:
        found.note(terms_of(sympy.sympify(size)))
    for _ in range(20):
        numbers = {axis: rng.randint(1, 9) for axis in axes}
        assert at(found.size, numbers) == max([sympy.sympify(size).subs(numbers) for size in sums])


@pytest.mark.slow
def test_counting_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before, numbers = snapshot(model), torch.get_rng_state()
    count(model, axes="b 4", backward=True)
    assert_unchanged(before, snapshot(model))
    assert torch.equal(torch.get_rng_state(), numbers)


@pytest.mark.slow
def test_distances_of_few_rows_have_another_cost() -> None:
    cost = count(torch.cdist, axes="y k, x k")
    assert cost.at(y=26, x=5, k=3).total == count(torch.cdist, axes="y k, x k", sizes={"y": 26, "x": 5, "k": 3}).total
    with pytest.raises(CircuitError, match="counted for sizes with x > 25, and x = 5 breaks it"):
        cost.at(y=4).at(x=5)  # torch computes these distances without a product
    assert count(torch.cdist, axes="y k, x k", sizes={"y": 4, "x": 5, "k": 3}).total.multiply_adds == 0
    one_by_one = count(torch.cdist, axes="y k, x k", compute_mode="donot_use_mm_for_euclid_dist")
    assert one_by_one.at(y=4, x=5).total.multiply_adds == 0
