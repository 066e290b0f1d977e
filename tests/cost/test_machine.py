"""Machine and lower_bound: the datasheets' numbers, the roofline by hand, and formulas that agree with numbers."""

import json
import random

import pytest
import sympy
import torch

from circuits import MACHINES, CircuitError, Machine, Rate, lower_bound

H100 = MACHINES["H100 SXM"]
TOY = Machine("toy", {torch.float32: Rate(100.0, "made up")}, Rate(10.0, "made up"), Rate(1e3, "made up"))


def test_the_datasheets() -> None:
    """REFERENCE 4: H100 SXM5: 989 TFLOP/s dense bf16, 3.35 TB/s, 80 GB."""
    assert (H100.flops[torch.bfloat16].value, H100.memory_rate.value, H100.memory.value) == (989e12, 3.35e12, 80e9)
    a100 = MACHINES["A100 SXM"]
    assert (a100.flops[torch.bfloat16].value, a100.memory_rate.value, a100.memory.value) == (312e12, 2.039e12, 80e9)
    for machine in MACHINES.values():
        rates = [*machine.flops.values(), machine.memory_rate, machine.memory, *machine.links.values()]
        assert all("datasheet" in rate.source for rate in rates)


@pytest.mark.parametrize(
    ("flops", "bytes", "expected"),
    [
        (1000, 50, (10.0, "compute")),
        (1000, 200, (20.0, "bandwidth")),
        (1000, 100, (10.0, "compute")),
        (0, 5, (0.5, "bandwidth")),
    ],
)
def test_the_larger_time_binds(flops: int, bytes: int, expected: tuple[float, str]) -> None:
    assert lower_bound(flops, bytes, torch.float32, TOY) == expected


def test_a_formula_at_sizes_is_the_number_at_these_sizes() -> None:
    n = sympy.Symbol("n", positive=True)
    seconds, binds = lower_bound(2 * n**3, 12 * n**2, torch.bfloat16, H100)
    rng = random.Random(0)
    for size in [rng.randint(1, 5000) for _ in range(20)]:
        expected = lower_bound(2 * size**3, 12 * size**2, torch.bfloat16, H100)
        assert float(seconds.subs(n, size)) == pytest.approx(expected[0])
        assert str(binds.subs(n, size)) == expected[1]
    assert lower_bound(sympy.Integer(1000), 50, torch.float32, TOY) == (sympy.Float(10), "compute")
    assert lower_bound(1000, sympy.Integer(200), torch.float32, TOY) == (sympy.Float(20), "bandwidth")


def test_a_dtype_without_rate_is_refused() -> None:
    with pytest.raises(CircuitError, match="toy has no rate for int64; it has float32"):
        lower_bound(1, 1, torch.int64, TOY)


@pytest.mark.parametrize("machine", [*MACHINES.values(), TOY], ids=lambda machine: machine.name)
def test_a_machine_is_plain_data_and_back(machine: Machine) -> None:
    again = Machine.from_dict(json.loads(json.dumps(machine.to_dict())))
    assert again == machine


def test_a_machine_prints_each_rate_with_its_source() -> None:
    measured = Rate(3.2e9, "measured", 3.0e9, 3.6e9)
    lines = str(Machine("here", {torch.float32: Rate(2e12, "a text")}, measured, Rate(8e9, "a fact"))).splitlines()
    assert lines == [
        "here",
        "  float32         2 TFLOP/s  a text",
        "  memory          3.2 (3 to 3.6) GB/s  measured",
        "  size of memory  8 GB  a fact",
    ]


def test_a_machine_shows_itself_in_one_line_and_in_notebooks() -> None:
    assert repr(H100) == "Machine('H100 SXM', at most 1.979 PFLOP/s, memory 80 GB at 3.35 TB/s)"
    assert repr(TOY) == "Machine('toy', at most 100 FLOP/s, memory 1 kB at 10 B/s)"
    without = Machine("no FLOPs", {}, Rate(10.0, "made up", 9.0, 11.0, 12.0), Rate(1e3, "made up"))
    assert repr(without) == "Machine('no FLOPs', memory 1 kB at 12 B/s)"
    text = H100._repr_html_()
    assert text.startswith("<table>")
    assert text.count("<tr>") == len(str(H100).splitlines())
    assert all(part in text for part in (">H100 SXM<", ">3.35 TB/s<", ">NVLink<", "GPU memory bandwidth<"))
