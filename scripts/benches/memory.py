"""The peak memory of a call, beyond the memory in use before it."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak(call: Callable[[], object], device: torch.device) -> int | None:
    """The peak memory of a call in bytes; None if the system does not report it.

    On an accelerator the allocator counts. On CPU the resident memory of the process is measured, so that memory of
    libraries counts too: Linux keeps its maximum since the last reset.
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
    """Return freed memory to the system, if the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(line: str) -> int:
    """One entry of /proc/self/status, in bytes."""
    found = re.search(rf"{line}:\s+(\d+) kB", _STATUS.read_text())
    return 1024 * int(found[1]) if found else 0
