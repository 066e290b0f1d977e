"""The settings of torch that the code of a run changes: gradient mode, inference mode, default dtype and device, ...

A setting that the code did not change is that of the caller: a diagram that was recorded with gradients on runs without
them under `torch.no_grad()`, as the original does. One that the code set (`with torch.enable_grad():`) belongs to the
calls that it made then, whatever the caller's setting is.
"""

from collections.abc import Iterable
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.autograd import grad_mode
from torch.utils import _device

from circuits.diagram import Setting

# The functions themselves, because `interception` patches these names.
_is_grad_enabled = torch.is_grad_enabled
_is_inference_mode_enabled = torch.is_inference_mode_enabled
_get_default_dtype = torch.get_default_dtype
_any_autocast = torch._C._is_any_autocast_enabled
_increment_nesting = torch.autocast_increment_nesting
_decrement_nesting = torch.autocast_decrement_nesting


class Settings:
    """The settings of one run, compared with those where the run began.

    A gradient or inference mode that the code has set belongs to it even if it is as before: torch passes
    `_set_grad_enabled` to function modes, and `intercepted_state` notes inference mode. The others are compared: code
    that sets a default dtype back to what it was has not chosen it.

    Args:
        are_read: Whether the settings of each call are asked for; if not, `current` returns none.
    """

    def __init__(self, are_read: bool = True) -> None:
        self._are_read = are_read
        self._start: Any = _read()
        self._last: Any = self._start
        self._of_process = process_settings()
        self._gradients: bool | None = None
        self._saved_tensors_hooks: list[Any] = []
        self._inference_modes: list[Any] = []
        self._before: WeakKeyDictionary[Any, bool | None] = WeakKeyDictionary()
        self._current: tuple[Setting, ...] = ()

    def current(self) -> tuple[Setting, ...]:
        """Return the settings that the code has set, each with its value."""
        if not self._are_read:
            return ()
        found = _read()
        if found != self._last:
            self._last, self._current = found, self._changed(found)
        return self._current

    def set_gradients(self, enabled: bool, frame: FrameType) -> None:
        """Note that the code sets the gradient mode; `frame` is the caller of `_set_grad_enabled`.

        When a context manager exits, the mode is that of the caller of the run again if it was so when the context
        manager was entered.
        """
        while frame.f_back is not None and frame.f_back.f_code.co_filename == grad_mode.__file__:
            frame = frame.f_back
        context = frame.f_locals.get("self") if frame.f_code.co_filename == grad_mode.__file__ else None
        if context is not None and frame.f_code.co_name == "__exit__":
            self._gradients = self._before.pop(context, self._gradients)
        else:
            if context is not None:
                self._before.setdefault(context, self._gradients)
            self._gradients = enabled
        self._last = None

    def enter_inference_mode(self, context: Any) -> None:
        """Note that the code enters a context manager `torch.inference_mode`."""
        self._inference_modes.append(context)
        self._last = None

    def exit_inference_mode(self, context: Any) -> None:
        """Note that the code exits such a context manager."""
        self._inference_modes = [each for each in self._inference_modes if each is not context]
        self._last = None

    def begin_hooks(self, hooks: Any) -> None:
        """Note that autograd saves tensors by two hooks, `(pack, unpack)`, until `end_hooks` is called."""
        self._saved_tensors_hooks.append(hooks)
        self._last = None

    def end_hooks(self) -> None:
        """Note that the last hooks are not used any more."""
        del self._saved_tensors_hooks[-1:]
        self._last = None

    def left_changed(self) -> str:
        """Return which settings the code has not set back to what they were where the run began; empty if none."""
        names = ("the gradient mode", "inference mode", "the default dtype", "the default device", "", "")
        pairs = zip(names, self._start, _read(), strict=True)
        left = [name for name, before, now in pairs if name and before != now]
        now = process_settings()
        left += [name for name, before in self._of_process.items() if now[name] != before]
        changed = " and ".join(left)
        return f"the run changes {changed} for the code after it" if changed else ""

    def has_set(self, names: Iterable[str]) -> bool:
        """Return whether the code has determined one of these settings, so that it is not that of the caller."""
        changed = {name for name, _ in self.current()}
        is_in_autocast = _read()[4] > self._start[4]
        return any(name in changed or (name == "autocast" and is_in_autocast) for name in names)

    def _changed(self, found: Any) -> tuple[Setting, ...]:
        """Return the settings that are not the caller's, with the values in `found`."""
        enabled, inference, dtype, device, nesting, autocast = found
        start_enabled, start_inference, start_dtype, start_device, start_nesting, _ = self._start
        settings: list[Setting] = []
        if inference != start_inference or self._inference_modes:
            settings.append(("inference", inference))
            start_enabled = not inference
        if enabled != start_enabled or self._gradients is not None:
            settings.append(("gradients", enabled))
        if dtype != start_dtype:
            settings.append(("default_dtype", dtype))
        if device != start_device:
            settings.append(("default_device", torch.device("cpu") if device is None else device))
        if nesting > start_nesting and not autocast:
            settings.append(("autocast", False))
        settings += [("saved_tensors_hooks", hooks) for hooks in self._saved_tensors_hooks[-1:]]
        return tuple(settings)


def process_settings() -> dict[str, Any]:
    """Return the settings of the whole process that no diagram has, by name: it refuses a run that leaves one changed.

    A call that the code makes while it has changed one only for itself has the caller's in a diagram.
    """
    return {
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "the precision of float32 matrix products": torch.get_float32_matmul_precision(),
        "anomaly detection": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    }


def restore_process_settings(before: dict[str, Any]) -> None:
    """Set the settings of the whole process, as `process_settings` returned them."""
    (enabled, warn_only), precision, anomaly = before.values()
    if before != process_settings():
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)
        torch.autograd.set_detect_anomaly(*anomaly)


def _read() -> Any:
    """Return gradient and inference mode, default dtype and device, how many autocasts are open, whether one is on."""
    _increment_nesting()
    return (
        _is_grad_enabled(),
        _is_inference_mode_enabled(),
        _get_default_dtype(),
        _device.CURRENT_DEVICE,
        _decrement_nesting(),
        _any_autocast(),
    )
