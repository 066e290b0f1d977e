"""Settings of torch that code changes for some calls: gradient mode, inference mode, default dtype and device.

`Call.settings` has those that the recorded code itself had changed when it made the call, with their values. A diagram
applies them to this call alone; all other settings are those under which the diagram is called.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from circuits.diagram.effects import without_values_of_run

Setting = tuple[str, Any]
"""A key of `SETTINGS`, and the value that the setting has."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make `dtype` the default dtype inside the `with`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def without_autocast(_: bool = False) -> Iterator[None]:
    """Disable autocast on every device type inside the `with`."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def saved_tensors_hooks(hooks: tuple[Callable[..., Any], Callable[..., Any]]) -> AbstractContextManager[Any]:
    """Return a context in which autograd saves tensors by these two hooks; they are not called without gradients."""
    if not torch.is_grad_enabled():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(*map(without_values_of_run, hooks))


SETTINGS: Mapping[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "inference": torch.inference_mode,
    "gradients": torch.set_grad_enabled,
    "default_dtype": default_dtype,
    "default_device": torch.device,
    "autocast": without_autocast,
    "saved_tensors_hooks": saved_tensors_hooks,
}
"""For each setting, the function that makes a context in which it has a value."""


def applied(settings: Iterable[Setting]) -> ExitStack:
    """Return a context in which each of these settings has its value."""
    stack = ExitStack()
    for name, value in settings:
        stack.enter_context(SETTINGS[name](value))
    return stack


def with_gradients(settings: Iterable[Setting], gradient: bool) -> tuple[Setting, ...]:
    """Return the settings of a call, with gradients off if `gradient` is False and no setting determines them.

    A call of an older pickle has only `gradient`.
    """
    known = tuple(settings)
    return known if gradient or any(name in ("gradients", "inference") for name, _ in known) else (*known, _NO_GRAD)


_NO_GRAD: Setting = ("gradients", False)
