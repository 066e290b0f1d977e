# This file uses private names of torch.
# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""What a test must leave as it was: entry points, modes and defaults of torch, and switches of circuits."""

import contextlib
import logging
import operator
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo import eval_frame
from torch._functorch import apis
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _python_dispatch

from circuits import switch
from circuits.checking import runtime
from circuits.recording import interception

PATCHABLE: dict[str, Any] = {
    "nn.Module": nn.Module,
    "autograd.Function": torch.autograd.Function,
    "Tensor": torch.Tensor,
    "torch.overrides": torch.overrides,
    "torch.functional": torch.functional,
    "nn.functional": nn.functional,
    "apis": apis,
    "torch": torch,
}
"""Classes and modules whose attributes are compared."""

_SWITCHES = {"recorders": switch._recorders, "recordings": interception._recordings}
_SWITCHES |= {"checks": runtime.checks_switch, "definitions": runtime.definitions_switch}


def process_state() -> dict[str, Any]:
    """Return what a test must not change, by name."""
    autocast = {device: torch.is_autocast_enabled(device) for device in ("cpu", "cuda")}
    found = {f"blocks of {name}": list(each.blocks) for name, each in _SWITCHES.items()}
    found |= {name: value for name, value in vars(_python_dispatch).items() if type(value) is bool}
    return found | {
        "stance of torch.compile": eval_frame._stance,
        "function modes": _get_current_function_mode_stack(),
        "dispatch modes": _python_dispatch._get_current_dispatch_mode_stack(),
        "functorch level": torch._C._functorch.maybe_current_level(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": (autocast, torch.is_autocast_cache_enabled(), torch.get_autocast_dtype("cpu")),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "number of threads of torch": torch.get_num_threads(),
        "hooks of all modules": [len(each) for name, each in vars(nn.modules.module).items() if _is_hooks(name)],
        "patched attributes": list(interception._patches),
        "lock of the entry points": interception._lock._is_owned(),
        "switch.active": switch.active,
        "recorder of the thread": switch.current(),
        "modes of circuits": (runtime.modes.checks, runtime.modes.definitions),
        "log filters": [*logging.getLogger("torch._subclasses.fake_tensor").filters],
        "handler of Ctrl-C": signal.getsignal(signal.SIGINT),
        "recursion limit": max(sys.getrecursionlimit(), 2000),  # torch's code generator raises it to 2000
        "working directory": os.getcwd(),
        "threads": [each for each in threading.enumerate() if not (each.daemon or _is_of_pool(each))],
    }


def _is_of_pool(thread: threading.Thread) -> bool:
    """Return whether a thread belongs to a pool, such as those in which torch's code generator compiles."""
    return thread.name.startswith("ThreadPoolExecutor")


def _is_hooks(name: str) -> bool:
    return name.startswith("_global_") and name.endswith("_hooks")


def attributes() -> dict[str, dict[str, Any]]:
    """Return the attributes of the classes and modules that a recording may patch."""
    return {name: dict(vars(holder)) for name, holder in PATCHABLE.items()}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry of `before` that has another value in `after`."""
    return [f"{name} was {before[name]!r}, is {after[name]!r}" for name in before if before[name] != after[name]]


def patched(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each attribute that is gone, or another object than before, unless torch itself replaced it.

    `torch.compile` replaces methods of `nn.Module` at its first use.
    """
    found = []
    for holder, known in before.items():
        if [*known] == [*after[holder]] and all(map(operator.is_, known.values(), after[holder].values())):
            continue  # as nearly always; the loop below would take longer than most tests
        for name, value in known.items():
            other = after[holder].get(name)
            if other is not value and not f"{getattr(other, '__module__', '')}".startswith("torch."):
                found.append(f"{holder}.{name} is {other!r}")
    return found


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Fail if the process is not at the end of the `with` as it was at its beginning; the message says what differs."""
    state, known = process_state(), attributes()
    yield
    found = [*differences(state, process_state()), *patched(known, attributes())]
    if found:
        pytest.fail("the test has changed the process:\n  " + "\n  ".join(found), pytrace=False)
