"""Cost.on: bounds computed by hand, formulas that agree with numbers, several dtypes, and caches."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import models
from circuits import MACHINES, Cost, Machine, Rate, count
from circuits.cost import bound, meter
from circuits.cost.groups import innermost
from circuits.diagram import evaluate
from tests.cost.claims import attention, symbol
from tests.models.test_zoo import MODELS

H100 = MACHINES["H100 SXM"]
TOY = Machine(
    "toy",
    {torch.float32: Rate(100.0, "made up"), torch.bfloat16: Rate(400.0, "made up")},
    Rate(10.0, "made up"),
    Rate(1e3, "made up"),
)
CACHED = replace(TOY, cache_rate=Rate(50.0, "made up"), cache=Rate(2000.0, "made up"))


@pytest.fixture(scope="module")
def cost() -> Cost:
    return count(attention)


def attention_by_hand(y: int, x: int, k: int, machine: Machine) -> tuple[float, float]:
    """Attention's operations one after the other, and as one kernel that moves queries, keys, values and results."""
    flops, memory = machine.flops[torch.float32].value, machine.memory_rate.value
    product = max(2 * y * x * k / flops, 4 * (y * k + x * k + y * x) / memory)
    pointwise = 4 * 2 * y * x / memory
    return 2 * product + 2 * pointwise, max(4 * y * x * k / flops, 4 * 2 * (y * k + x * k) / memory)


@pytest.mark.parametrize("machine", [H100, TOY], ids=lambda machine: machine.name)
@pytest.mark.parametrize("sizes", [(1, 4096, 64), (4096, 4096, 64), (128, 128, 8), (300, 5, 1)])
def test_attention_by_hand(cost: Cost, machine: Machine, sizes: tuple[int, int, int]) -> None:
    y, x, k = sizes
    total = cost.at(y=y, x=x, k=k).on(machine).total
    assert (total.unfused, total.fused) == pytest.approx(attention_by_hand(y, x, k, machine))


def test_decoding_one_token_is_bound_by_bandwidth_and_many_by_compute(cost: Cost) -> None:
    """One query of 64 channels has half a FLOP a byte; 4096 queries have 1024 in one kernel. The ridge is at 20."""
    one, many = [cost.at(y=y, x=4096, k=64).on("H100 SXM").total for y in (1, 4096)]
    assert (one.fused_binds, one.unfused_binds) == ("bandwidth", "bandwidth")
    assert one.fused == pytest.approx(4 * 2 * (1 + 4096) * 64 / 3.35e12)
    assert (many.fused_binds, many.unfused_binds) == ("compute", "bandwidth")
    assert many.fused == pytest.approx(4 * 4096 * 4096 * 64 / 67e12)
    assert many.intensity == pytest.approx(4 * 4096**2 * 64 / (4 * (4 * 4096 * 64 + 6 * 4096**2)))


def test_a_matrix_product_is_bound_by_compute() -> None:
    found = count(torch.mm, torch.empty(4096, 4096).bfloat16(), torch.empty(4096, 4096).bfloat16()).on("H100 SXM")
    assert found.total.unfused == found.total.fused == 2 * 4096**3 / 989e12
    assert found.total.unfused_binds == found.total.fused_binds == "compute"


def numbers_of(formula: Any, sizes: dict[str, int]) -> Any:
    return evaluate(formula, {symbol(axis): size for axis, size in sizes.items()})


@pytest.mark.parametrize("machine", [H100, TOY, CACHED], ids=["H100", "toy", "toy with a cache"])
def test_formulas_at_sizes_are_the_numbers_at_these_sizes(cost: Cost, machine: Machine) -> None:
    rng, formulas = random.Random(0), cost.on(machine)
    for _ in range(5):
        sizes = {axis: rng.randint(1, 500) for axis in "yxk"}
        numbers = cost.at(**sizes).on(machine)
        assert formulas.at(**sizes) == numbers
        for formula, number in zip(formulas.rows, numbers.rows, strict=True):
            assert float(numbers_of(formula.unfused, sizes)) == pytest.approx(number.unfused)
            assert float(numbers_of(formula.fused, sizes)) == pytest.approx(number.fused)
            binds = sympy.sympify(formula.fused_binds)
            assert str(binds.subs({symbol(axis): size for axis, size in sizes.items()})) == number.fused_binds


def test_what_binds_several_operations_depends_on_sizes(cost: Cost) -> None:
    found = cost.on(H100)
    assert found.total.unfused_binds is None
    assert found.rows[2].unfused_binds == "bandwidth"  # the scaling, at all sizes
    assert found.at(y=1).total.unfused.free_symbols == {symbol("x"), symbol("k")}
    assert found.at(y=1).total.fused_binds == "bandwidth"  # one query, whatever it attends to
    assert found.at(x=4096).total.fused_binds.free_symbols >= {symbol("y")}


class Mixed(nn.Module):
    """A linear map in float32, one in bfloat16, and a product of both after a cast."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).bfloat16())


def test_flops_take_the_rate_of_their_dtype() -> None:
    b = 3
    rows = count(Mixed(), torch.empty(b, 8)).on(TOY).rows
    one, cast, two = [row for row in rows if row.kind == "operation"]
    assert one.unfused == max(2 * b * 8 * 16 / 100, 4 * (b * 8 + 8 * 16 + b * 16) / 10)
    assert cast.unfused == (4 + 2) * b * 16 / 10
    assert two.unfused == max(2 * b * 16 * 4 / 400, 2 * (b * 16 + 16 * 4 + b * 4) / 10)
    large = replace(TOY, memory_rate=Rate(1e9, "made up"))  # then both compute, in units that may run at once
    total = count(Mixed(), torch.empty(b, 8)).on(large).total
    assert total.unfused == pytest.approx(2 * b * 8 * 16 / 100 + 2 * b * 16 * 4 / 400 + 6 * b * 16 / 1e9)
    assert total.fused == 2 * b * 8 * 16 / 100


def test_autocast_computes_in_the_dtype_of_autocast() -> None:
    class Cast(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    (flops,) = {work.flops for work, _ in count(Cast(8, 4), torch.empty(3, 8)).total.work if work.flops}
    assert flops == ((torch.bfloat16, 2 * 3 * 8 * 4),)


def test_a_contraction_computes_in_the_floating_dtype_with_the_fewest_bytes() -> None:
    """Scales and bias of a product in float8 have more bytes; weights in int8 are converted."""
    dtypes = (torch.float32, torch.float8_e4m3fn, torch.float8_e4m3fn, torch.bfloat16)
    assert meter._computed_in([torch.empty(1, dtype=dtype) for dtype in dtypes]) == torch.float8_e4m3fn
    dtypes = (torch.bfloat16, torch.int8, torch.bfloat16)
    assert meter._computed_in([torch.empty(1, dtype=dtype) for dtype in dtypes]) == torch.bfloat16
    assert meter._computed_in([torch.empty(1, dtype=torch.int8)]) == torch.int8


def test_as_many_bytes_as_fit_may_be_in_the_cache() -> None:
    """50 bytes a second at most, and 10 for what exceeds 2000 bytes."""

    def seconds(n: int, machine: Machine) -> float:
        return count(torch.exp, torch.empty(n)).on(machine).total.unfused

    assert seconds(100, CACHED) == 800 / 50
    assert seconds(1000, CACHED) == (8000 - 2000) / 10
    assert seconds(300, CACHED) == max(2400 / 50, 400 / 10)
    assert seconds(300, TOY) == seconds(300, replace(CACHED, cache=None)) == 2400 / 10
    assert seconds(100, replace(CACHED, cache_rate=Rate(1.0, "slower than memory"))) == 800 / 10


def test_operations_one_after_the_other_take_no_less_time_than_one_kernel() -> None:
    """Ten tensors of 1200 bytes may each be in a cache of 2000, and all ten may not."""
    tensors = [torch.empty(300) for _ in range(10)]
    total = count(lambda *given: [each.exp_() for each in given], *tensors).on(CACHED).total
    assert total.fused == (10 * 2400 - 2000) / 10 == total.unfused > 10 * 2400 / 50


def test_the_fastest_run_of_a_measured_rate_counts() -> None:
    measured = replace(TOY, memory_rate=Rate(10.0, "measured", 9.0, 11.0, best=20.0))
    assert count(torch.exp, torch.empty(300)).on(measured).total.unfused == 2400 / 20


def test_operations_without_contractions_need_no_rate_of_their_dtype() -> None:
    assert count(torch.exp, torch.empty(4).double()).on(TOY).total.unfused == 2 * 8 * 4 / 10


def test_live_flops_are_whole_numbers() -> None:
    """A causal mask leaves half of the pairs, which was a fraction of floats."""
    run = lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)  # noqa: E731
    total = count(run, torch.empty(1, 1, 5, 4)).total
    assert (total.live_flops, type(total.live_flops)) == (4 * 4 * 15, int)


# --- Rows and totals --------------------------------------------------------------------------------------------------


def check_rows(name: str, cost: Cost, machine: Machine) -> None:
    """What holds of all rows: work adds up to FLOPs and bytes, and one kernel takes no more time than several."""
    found = cost.on(machine)
    for row, times in zip(cost.rows, found.rows, strict=True):
        where = f"{name}: {row.label}"
        assert sum([number * each for work, each in row.work for _, number in work.flops]) == row.live_flops, where
        assert sum([work.bytes * each for work, each in row.work]) == row.bytes, where
        assert 0 <= times.crossing <= row.bytes, where
        assert times.fused <= times.unfused * (1 + 1e-9), where
    leaves = [times for row, times in zip(cost.rows, found.rows, strict=True) if row in innermost(cost.rows)]
    assert found.total.unfused == pytest.approx(sum([each.unfused for each in leaves]))
    groups = cost.by("operation").on(machine)
    assert groups.total == found.total
    assert sum([row.unfused for row in groups.rows]) == pytest.approx(found.total.unfused)
    assert all(row.fused is None for row in groups.rows)


QUICK = ("convolution", "language model")


@pytest.mark.every(1, 4)
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_rows_of_the_zoo_add_up(name: str) -> None:
    entry = MODELS[name]
    free = count(entry.make())
    sizes = {axis: entry.sizes[axis] for axis in free.axes}
    cost = free.at(**sizes)
    check_rows(name, cost, TOY)
    formulas, numbers = free.on(CACHED).total, cost.on(CACHED).total
    assert float(numbers_of(formulas.unfused, sizes)) == pytest.approx(numbers.unfused)
    assert float(numbers_of(formulas.fused, sizes)) == pytest.approx(numbers.fused)


def test_one_kernel_moves_inputs_parameters_and_results_once() -> None:
    """A model whose operations read all of their inputs and parameters: counted here from the tensors themselves."""
    model, (b, y, x) = models.MultiHeadAttention(m=16, k=4, h=2), (3, 5, 7)
    target, source = torch.randn(b, y, 16), torch.randn(b, x, 16)
    tensors = [target, source, *model.parameters(), model(target, source)]
    assert count(model, target, source).total.crossing == sum([each.nbytes for each in tensors])


# --- Planted errors ---------------------------------------------------------------------------------------------------


def _sum_of_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bound, "larger", lambda compute, bandwidth: (compute + bandwidth, "compute"))


def _flops_of_one_dtype(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(meter, "_computed_in", lambda tensors: torch.float32)


def _no_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bound, "_memory", lambda bytes, machine: bytes / machine.memory_rate.peak)


def _unfused_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bound, "_largest", lambda *times: times[0])


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (_sum_of_times, lambda: test_a_matrix_product_is_bound_by_compute()),
        (_flops_of_one_dtype, lambda: test_flops_take_the_rate_of_their_dtype()),
        (_flops_of_one_dtype, lambda: test_autocast_computes_in_the_dtype_of_autocast()),
        (_no_cache, lambda: test_as_many_bytes_as_fit_may_be_in_the_cache()),
        (_unfused_alone, lambda: test_operations_one_after_the_other_take_no_less_time_than_one_kernel()),
    ],
)
def test_a_planted_error_breaks_a_test(
    plant: Callable[[pytest.MonkeyPatch], None], check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
