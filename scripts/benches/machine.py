"""The rates of this machine as a `Machine`: FLOPs by a matrix product, bytes by a triad in memory and in cache.

The triad is that of J. McCalpin's STREAM benchmark, a = b + 3 c, which reads two tensors and writes one. On CPU the
write may read the cache line first; these bytes are not counted, as in STREAM. A rate is the median of its runs, with
its quartiles, and the fastest run, for lower bounds on times. Small matrices are multiplied too, because they may be
faster; these are among the runs of which the fastest counts, but not in the median.
"""

import datetime
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from circuits import Machine, Rate
from scripts.benches.timing import Spread, interleaved

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNKNOWN_CACHE = 64 * 2**20
"""The size of the largest cache where the system does not report it."""
_DTYPES = ("float32", "bfloat16")
_SMALL = 2**20
"""The bytes of the three tensors of a triad in cache."""
_REPEATED = 200
"""How many triads in cache one measurement runs."""


def measure(size: int, blocks: int, device: torch.device, most: int = 2**31) -> Machine:
    """Return the rates of this machine.

    Args:
        size: The number of rows and columns of the matrices that are multiplied.
        blocks: How often each rate is measured, at least 2.
        device: The device that is measured.
        most: The most bytes of the three tensors of a triad in memory; they are four times the largest cache, if that
            is less.
    """
    large = min(most, 4 * largest_cache())
    run: dict[str, Callable[[], object]] = {
        **{dtype: _product(size, getattr(torch, dtype), device) for dtype in _DTYPES},
        "memory": _triads(large, 1, device),
    }
    if device.type == "cpu":  # elsewhere a kernel takes longer to launch than these bytes to move
        run["cache"] = _triads(_SMALL, _REPEATED, device)
    smaller = [(rows, dtype) for rows in (size // 4, size // 16) if rows for dtype in _DTYPES]
    run |= {f"{dtype} {rows}": _product(rows, getattr(torch, dtype), device) for rows, dtype in smaller}
    for function in run.values():
        function()
    times = interleaved(run, blocks, 1)

    def rate(name: str, amount: float, what: str, others: Sequence[float] = ()) -> Rate:
        rates = [amount / seconds for seconds in times[name]]
        spread, today = Spread.of(rates), datetime.datetime.now(datetime.UTC).date()
        source = (
            f"measured {today}, {blocks} runs of {what}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        return Rate(spread.middle, source, spread.low, spread.high, max([*rates, *others]))

    def product(dtype: str) -> Rate:
        others = [2 * rows**3 / each for rows, other in smaller if other == dtype for each in times[f"{dtype} {rows}"]]
        return rate(dtype, 2 * size**3, f"a matrix product of {size} × {size} × {size}", others)

    what = f"{_REPEATED} triads of three tensors, together {_SMALL:,} bytes"
    return Machine(
        _name(device),
        MappingProxyType({getattr(torch, dtype): product(dtype) for dtype in _DTYPES}),
        rate("memory", 12 * (large // 12), f"a triad of three tensors, together {large:,} bytes"),
        _memory(device),
        rate("cache", _REPEATED * 12 * (_SMALL // 12), what) if "cache" in run else None,
        cache=Rate(largest_cache(), "reported by the system") if "cache" in run else None,
    )


def _product(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Return a function that multiplies two matrices."""
    left, right, out = [torch.randn(size, size, device=device).to(dtype) for _ in range(3)]
    return lambda: (torch.mm(left, right, out=out), _wait(device))


def _triads(total: int, repeated: int, device: torch.device) -> Callable[[], object]:
    """Return a function that computes a = b + 3 c this often; the three tensors have `total` bytes together."""
    a, b, c = [torch.ones(total // 12, device=device) for _ in range(3)]

    def run() -> None:
        for _ in range(repeated):
            torch.add(b, c, alpha=3.0, out=a)
        _wait(device)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_cache() -> int:
    """Return the bytes of the largest cache of the CPU, as Linux reports it."""
    found = [re.fullmatch(r"(\d+)([KM]?)\s*", path.read_text()) for path in _CACHES.glob("index*/size")]
    scales = {"": 1, "K": 2**10, "M": 2**20}
    return max([int(each[1]) * scales[each[2]] for each in found if each], default=_UNKNOWN_CACHE)


def _memory(device: torch.device) -> Rate:
    if device.type == "cuda":
        return Rate(torch.cuda.get_device_properties(device).total_memory, "reported by torch.cuda")
    return Rate(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "reported by the system")


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", path.read_text()) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
