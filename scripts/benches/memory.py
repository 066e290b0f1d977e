"""How much memory a call takes at its peak, beyond what was there before."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes, at the highest; None where the system does not tell.

    An accelerator's allocator keeps count. On CPU it is the process that is looked at, so that what libraries take
    for themselves counts too: Linux notes the highest since it was last told to forget it.
    """
    call()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not _STATUS.exists():
        return None
    _give_back()
    before = _resident("VmRSS")
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    call()
    return _resident("VmHWM") - before


def _give_back() -> None:
    """Hand freed memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(line: str) -> int:
    """A line of the process's status, in bytes."""
    found = re.search(rf"{line}:\s+(\d+) kB", _STATUS.read_text())
    return 1024 * int(found[1]) if found else 0
