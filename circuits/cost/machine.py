"""`Machine`: the rates of a machine, each with its source, and a lower bound on the time of an operation.

The rates are peak rates, which no program exceeds: a time computed from them is a lower bound, no estimate. Of a
measured rate that is the fastest run.

Source: S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (4), 2009.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import sympy
import torch

from circuits.cost.texts import amount
from circuits.diagram import Cells, Table
from circuits.errors import CircuitError, entry_point, entry_points


@dataclass(frozen=True)
class Rate:
    """A number of a machine, with its source.

    Attributes:
        value: The number: FLOPs or bytes in a second, or bytes.
        source: Where it is from: a document, or how it was measured.
        low, high: The quartiles of a measurement, whose median is `value`; None for a number from a document.
        best: The fastest run of a measurement; None for a number from a document.
    """

    value: float
    source: str
    low: float | None = None
    high: float | None = None
    best: float | None = None

    @property
    def peak(self) -> float:
        """The rate for lower bounds: that of the fastest run, or of the document."""
        return self.value if self.best is None else self.best


@entry_points("rate_of")
@dataclass(frozen=True)
class Machine:
    """The peak rates of a machine.

    Attributes:
        name: The machine.
        flops: FLOPs in a second of dense matrix products, by dtype; a multiply-add is two.
        memory_rate: Bytes in a second from and to its memory, both directions together.
        memory: The bytes of its memory.
        cache_rate: Bytes in a second from and to its fastest cache that was measured; None if unknown.
        links: Bytes in a second of each kind of link, both directions together, by name.
        cache: The bytes of its largest cache; None if unknown.
        node: How many such devices are connected by the fastest of `links`, each with every other.
        network: Bytes in a second of one device to and from other nodes, both directions together; None if unknown.
    """

    name: str
    flops: Mapping[torch.dtype, Rate]
    memory_rate: Rate
    memory: Rate
    cache_rate: Rate | None = None
    links: Mapping[str, Rate] = field(default_factory=lambda: MappingProxyType({}))
    cache: Rate | None = None
    node: int = 1
    network: Rate | None = None

    def __repr__(self) -> str:
        """Return the main rates: `Machine('H100 SXM', at most 1.979 PFLOP/s, memory 80 GB at 3.35 TB/s)`."""
        flops = [amount(max([rate.peak for rate in self.flops.values()]), "FLOP/s")] if self.flops else []
        memory = f"memory {amount(self.memory.value, 'B')} at {amount(self.memory_rate.peak, 'B/s')}"
        return f"Machine({', '.join([repr(self.name), *[f'at most {each}' for each in flops], memory])})"

    def __str__(self) -> str:
        return "\n".join([self.name, *[f"  {name:<14}  {text}  {source}" for name, text, source in self._lines()]])

    def _repr_html_(self) -> str:
        """Return the rates and their sources as a table in HTML, which notebooks show."""
        names, texts, sources = zip(*self._lines(), strict=True)
        columns = [Cells([self.name, *names]), Cells(["rate", *texts], right=True), Cells(["source", *sources])]
        return Table(columns, []).html()

    def _lines(self) -> list[tuple[str, str, str]]:
        """Return what each number is, its text and its source."""
        rows = [(f"{str(dtype).removeprefix('torch.')}", "FLOP/s", rate) for dtype, rate in self.flops.items()]
        rows += [
            ("memory", "B/s", self.memory_rate),
            ("cache", "B/s", self.cache_rate),
            ("size of memory", "B", self.memory),
            ("size of cache", "B", self.cache),
        ]
        rows += [(name, "B/s", rate) for name, rate in self.links.items()]
        rows += [("network", "B/s", self.network)]
        return [(name, _shown(rate, unit), rate.source) for name, unit, rate in rows if rate]

    def to_dict(self) -> dict[str, Any]:
        """Return the machine as plain data for JSON, from which `from_dict` makes it again."""
        return {
            "name": self.name,
            "flops": {str(dtype).removeprefix("torch."): vars(rate) for dtype, rate in self.flops.items()},
            "memory_rate": vars(self.memory_rate),
            "memory": vars(self.memory),
            "cache_rate": vars(self.cache_rate) if self.cache_rate else None,
            "links": {name: vars(rate) for name, rate in self.links.items()},
            "cache": vars(self.cache) if self.cache else None,
            "node": self.node,
            "network": vars(self.network) if self.network else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Machine":
        """Return the machine that `to_dict` returned as plain data."""
        return cls(
            data["name"],
            MappingProxyType({getattr(torch, name): Rate(**rate) for name, rate in data["flops"].items()}),
            Rate(**data["memory_rate"]),
            Rate(**data["memory"]),
            Rate(**data["cache_rate"]) if data["cache_rate"] else None,
            MappingProxyType({name: Rate(**rate) for name, rate in data["links"].items()}),
            Rate(**data["cache"]) if data.get("cache") else None,
            data.get("node", 1),
            Rate(**data["network"]) if data.get("network") else None,
        )

    def rate_of(self, dtype: torch.dtype) -> Rate:
        """Return the rate of FLOPs in a dtype.

        Raises:
            CircuitError: The machine has none.
        """
        if dtype not in self.flops:
            known = ", ".join([str(each).removeprefix("torch.") for each in self.flops])
            raise CircuitError(f"{self.name} has no rate for {str(dtype).removeprefix('torch.')}; it has {known}")
        return self.flops[dtype]


def _shown(rate: Rate, unit: str) -> str:
    scale, prefix = next((pair for pair in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if rate.value >= pair[0]), (1, ""))
    spread = "" if rate.low is None or rate.high is None else f"{rate.low / scale:.3g} to {rate.high / scale:.3g}"
    found = [spread, "" if rate.best is None else f"at most {rate.best / scale:.4g}"]
    within = f" ({', '.join([each for each in found if each])})" if any(found) else ""
    return f"{rate.value / scale:.4g}{within} {prefix}{unit}"


@entry_point
def lower_bound(flops: Any, bytes: Any, dtype: torch.dtype, machine: Machine) -> tuple[Any, Any]:
    """Return a lower bound on the seconds of an operation, and what binds: "compute" or "bandwidth".

    The operation takes at least the time of its FLOPs at the peak rate, and that of its bytes; the bound is the larger.
    It assumes that both overlap completely. If the inputs are formulas, so is the bound; what binds is then a
    `sympy.Piecewise` of the symbols `compute` and `bandwidth`, unless it is the same at all sizes.

    Args:
        flops: The number of FLOPs, or a formula of sympy.
        bytes: The number of bytes read from and written to memory, or a formula.
        dtype: The dtype in which it computes.
        machine: The machine.

    Raises:
        CircuitError: The machine has no rate for the dtype.

    >>> seconds, binds = lower_bound(2 * 4096**3, 3 * 2 * 4096**2, torch.bfloat16, H100_SXM)
    >>> f"{seconds * 1e6:.1f} µs, {binds}"
    '139.0 µs, compute'
    """
    compute, bandwidth = machine.rate_of(dtype).peak, machine.memory_rate.peak
    if any(isinstance(each, sympy.Basic) for each in (flops, bytes)):
        return larger(sympy.sympify(flops) / compute, sympy.sympify(bytes) / bandwidth)
    return larger(flops / compute, bytes / bandwidth)


def larger(compute: Any, bandwidth: Any) -> tuple[Any, Any]:
    """Return the larger of two times, and what binds: "compute" or "bandwidth", or a formula as in `lower_bound`."""
    if not any(isinstance(each, sympy.Basic) for each in (compute, bandwidth)):
        return (compute, "compute") if compute >= bandwidth else (bandwidth, "bandwidth")
    computes, seconds = sympy.Ge(compute, bandwidth), sympy.Max(compute, bandwidth)
    if computes in (sympy.true, sympy.false):
        return seconds, "compute" if computes == sympy.true else "bandwidth"
    names = sympy.Symbol("compute"), sympy.Symbol("bandwidth")
    return seconds, sympy.Piecewise((names[0], computes), (names[1], True))


_H100 = "NVIDIA H100 Tensor Core GPU datasheet, H100 SXM"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet, A100 80GB SXM"
_DENSE = "; dense: half of the figure with sparsity"

H100_SXM = Machine(
    "H100 SXM",
    MappingProxyType({
        torch.float64: Rate(67e12, f"{_H100}, FP64 Tensor Core"),
        torch.float32: Rate(67e12, f"{_H100}, FP32; not TF32"),
        torch.bfloat16: Rate(989e12, f"{_H100}, BFLOAT16 Tensor Core{_DENSE}"),
        torch.float16: Rate(989e12, f"{_H100}, FP16 Tensor Core{_DENSE}"),
        torch.float8_e4m3fn: Rate(1979e12, f"{_H100}, FP8 Tensor Core{_DENSE}"),
        torch.float8_e5m2: Rate(1979e12, f"{_H100}, FP8 Tensor Core{_DENSE}"),
    }),
    Rate(3.35e12, f"{_H100}, GPU memory bandwidth"),
    Rate(80e9, f"{_H100}, GPU memory"),
    links=MappingProxyType({
        "NVLink": Rate(900e9, f"{_H100}, interconnect"),
        "PCIe": Rate(128e9, f"{_H100}, interconnect, PCIe Gen5"),
    }),
    node=8,
    network=Rate(100e9, "NVIDIA DGX H100 datasheet: 8 GPUs and 8 ConnectX-7 of 400 Gb/s in each direction"),
)  # fmt: skip
"""NVIDIA's H100 SXM, as its datasheet says; the datasheet has no bandwidth of the cache."""

A100_SXM = Machine(
    "A100 SXM",
    MappingProxyType({
        torch.float64: Rate(19.5e12, f"{_A100}, FP64 Tensor Core"),
        torch.float32: Rate(19.5e12, f"{_A100}, FP32; not TF32"),
        torch.bfloat16: Rate(312e12, f"{_A100}, BFLOAT16 Tensor Core, dense"),
        torch.float16: Rate(312e12, f"{_A100}, FP16 Tensor Core, dense"),
    }),
    Rate(2.039e12, f"{_A100}, GPU memory bandwidth"),
    Rate(80e9, f"{_A100}, GPU memory"),
    links=MappingProxyType({
        "NVLink": Rate(600e9, f"{_A100}, interconnect"),
        "PCIe": Rate(64e9, f"{_A100}, interconnect, PCIe Gen4"),
    }),
    node=8,
    network=Rate(50e9, "NVIDIA DGX A100 datasheet: 8 GPUs and 8 ConnectX-6 of 200 Gb/s in each direction"),
)  # fmt: skip
"""NVIDIA's A100 SXM with 80 GB, as its datasheet says; the datasheet has no bandwidth of the cache."""

MACHINES: Mapping[str, Machine] = MappingProxyType({each.name: each for each in (H100_SXM, A100_SXM)})
"""The machines that are known by name."""
