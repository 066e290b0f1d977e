# This file changes private names of torch.
# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""The check after every test finds what a test leaves behind, and names it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._functorch import apis
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import BaseTorchFunctionMode

from circuits import checks, definitions, switch
from circuits.recording import Listener, recorded_by
from tests.process_state import unchanged_process


def replaced(holder: Any, name: str) -> Callable[[], Any]:
    """Return a function that replaces an attribute and returns a function that restores it."""

    def replace() -> Any:
        original = holder.__dict__[name]
        setattr(holder, name, lambda *args, **kwargs: original(*args, **kwargs))
        return lambda: setattr(holder, name, original)

    return replace


def entered(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that enters a context manager and returns a function that leaves it."""

    def enter() -> Any:
        manager = make()
        manager.__enter__()
        return lambda: manager.__exit__(None, None, None)

    return enter


def called(change: Callable[[], Any], undo: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that calls `change` and returns `undo`."""

    def call() -> Any:
        change()
        return undo

    return call


class Filter(logging.Filter):
    """A filter that is always equal to itself."""


FILTER, LOG = Filter(), logging.getLogger("torch._subclasses.fake_tensor")
DEFECTS: dict[str, Callable[[], Any]] = {
    "nn.Module._call_impl": replaced(nn.Module, "_call_impl"),
    "apis.vmap_impl": replaced(apis, "vmap_impl"),
    "autograd.Function.apply": replaced(torch.autograd.Function, "apply"),
    "torch.overrides.has_torch_function": replaced(torch.overrides, "has_torch_function"),
    "torch.from_numpy": replaced(torch, "from_numpy"),
    "stance of torch.compile": entered(lambda: torch.compiler.set_stance("force_eager")),
    "function modes": entered(BaseTorchFunctionMode),
    "dispatch modes": entered(FakeTensorMode),
    "functorch level": called(
        lambda: torch._C._functorch._grad_increment_nesting(), lambda: torch._C._functorch._grad_decrement_nesting()
    ),
    "gradient mode": entered(torch.no_grad),
    "inference mode": entered(torch.inference_mode),
    "autocast": entered(lambda: torch.autocast("cpu")),
    "default dtype": called(
        lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)
    ),
    "default device": called(lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "hooks of all modules": called(
        lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
        lambda: nn.modules.module._global_forward_hooks.clear(),
    ),
    "modes of circuits": entered(definitions),
    "blocks of checks": entered(lambda: checks(False)),
    "switch.active": entered(lambda: switch.set_recorder(None)),
    "recorder of the thread": entered(lambda: switch.set_recorder(Listener())),
    "patched attributes": entered(lambda: recorded_by(Listener())),
    "log filters": called(lambda: LOG.addFilter(FILTER), lambda: LOG.removeFilter(FILTER)),
    "working directory": called(lambda: os.chdir("/"), lambda: os.chdir(Path(__file__).parents[1])),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_named(name: str) -> None:
    undo: list[Any] = []
    try:
        with pytest.raises(pytest.fail.Exception, match=name), unchanged_process():
            undo.append(DEFECTS[name]())
    finally:
        undo[0]()


def test_attributes_that_torch_replaces_itself_are_not_named() -> None:
    original = nn.Module.__init__
    with unchanged_process():
        nn.Module.__init__ = torch.nn.Linear.__init__
    nn.Module.__init__ = original
