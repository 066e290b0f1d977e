"""A `Bound` as a table and as plain data, and what `Cost.on` refuses."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from circuits import Bound, CircuitError, Cost, Machine, count
from circuits.cost.texts import duration
from tests.cost.claims import attention
from tests.cost.test_bound import CACHED, H100, TOY


@pytest.fixture(scope="module")
def cost() -> Cost:
    return count(attention)


def test_the_table(cost: Cost) -> None:
    lines = str(cost.at(y=1, x=4096, k=64).on(H100)).splitlines()
    assert " ".join(lines[0].split()) == "box FLOPs bytes moved FLOPs/byte unfused binds bytes in and out fused binds"
    numbers = "1.049 M 2.196 MB 0.4775 655.5 ns bandwidth 2.098 MB 626.2 ns bandwidth"
    assert " ".join(lines[1].split()).endswith(f"y k {numbers}")
    assert max(map(len, lines)) <= 120
    assert lines[-3] == (
        "H100 SXM, at most: float32 67 TFLOP/s (ridge at 20 FLOPs/byte), memory 3.35 TB/s; no cache is assumed"
    )
    assert len(cost.on(H100).table(depth=0).splitlines()) == len(lines) - 4 + 1  # and the line of the axes
    narrow = cost.at(y=1, x=4096, k=64).on(H100).table(width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "not shown  binds, fused, bytes in and out (wider" in narrow
    assert cost.on(H100).table().splitlines()[-1] == "times are formulas in y, k, x: at(y=…) gives sizes"
    assert cost.by("operation").at(y=2, x=2, k=2).on(CACHED).table().splitlines()[-5].split()[0] == "total"
    assert "up to 2 kB may be in a cache, 50 B/s" in cost.at(y=2, x=2, k=2).on(CACHED).table()


def test_bounds_show_themselves_in_one_line(cost: Cost) -> None:
    bound = cost.at(y=1, x=4096, k=64).on(H100)
    whole = "'attention: ... y k, ... x k, ... x k -> ... y k'"
    assert repr(bound.total) == f"BoxBound({whole}: unfused 655.5 ns (bandwidth), fused 626.2 ns (bandwidth))"
    assert repr(bound) == f"Bound(H100 SXM, 5 rows, {repr(bound.total)[9:-1]})"
    assert repr(cost.on(H100).rows[2]) == "BoxBound('mul': unfused a formula in x, y, fused a formula in x, y)"
    assert repr(cost.by("operation").at(y=1, x=1, k=1).on(H100).rows[0]).count("fused") == 1  # a group has no boundary


def test_plain_data_is_json(cost: Cost) -> None:
    found = cost.on(CACHED)
    data = json.loads(json.dumps(found.to_dict()))
    assert Machine.from_dict(data["machine"]) == CACHED
    assert data["total"]["crossing"] == "8*k*x + 8*k*y"
    numbers = json.loads(json.dumps(found.at(y=1, x=2, k=3).to_dict()))
    assert numbers["total"]["fused"] == found.at(y=1, x=2, k=3).total.fused
    assert len(numbers["rows"]) == len(found.rows)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (2.5, "2.5 s"),
        (90.0, "90 s"),
        (0.99999, "1 s"),
        (0.9999, "999.9 ms"),
        (0.000139, "139 µs"),
        (3e-10, "0.3 ns"),
        (1e-6, "1 µs"),
    ],
)
def test_a_time_is_in_the_unit_that_fits(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def refused(call: Callable[[], Bound]) -> str:
    with pytest.raises(CircuitError) as caught:
        call()
    return str(caught.value)


def test_what_is_refused(cost: Cost) -> None:
    assert refused(lambda: cost.on("H100")) == "on: no machine is called 'H100'; there are H100 SXM, A100 SXM"
    wrong: Any = 3
    assert refused(lambda: cost.on(wrong)) == "on: a Machine or the name of one is expected, not 3"
    doubled = count(nn.Linear(3, 4).double(), axes="b 3")
    expected = "on: linear: toy has no rate for float64; it has float32, bfloat16"
    assert refused(lambda: doubled.on(TOY)) == expected
    assert refused(lambda: doubled.by("operation").on(TOY)) == expected
    assert refused(lambda: cost.on(H100).at(z=3)) == "at: there is no free axis z; the free axes are y, k, x"


def test_operations_without_a_formula_are_named() -> None:
    lines = count(torch.fft.fft, torch.empty(8, 16)).on(H100).table().splitlines()
    assert lines[-1] == "not counted (no formula): _fft_r2c 8 16"
