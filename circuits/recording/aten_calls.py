"""Record the ATen operations of a traced run that torch passes to no function mode.

Constructors (`torch.FloatTensor`, `Variable(x)`) and code in C++ call ATen directly. `trace` runs on fake tensors,
whose dispatch mode sees these operations too.
"""

from typing import Any

import torch
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits.recording.fake_forms import FakeMode
from circuits.recording.known_data import KnownData
from circuits.recording.listener import Listener

_FRESH = {torch.ops.aten.lift_fresh.default: torch.ops.aten.lift_fresh_copy.default}
"""The operation that a diagram runs in place of each: a constructor returns a new tensor at each run."""


class RecordedFakeMode(FakeMode):
    """A fake mode that records each operation that runs in an open box and outside every recorded call.

    Args:
        listener: The recorder.
        with_state: Whether code that reads data of parameters, buffers and tensors outside the run gets it.
        **options: The arguments of `FakeMode`.

    Attributes:
        known: The data of the run that is known.
    """

    def __init__(self, listener: Listener, with_state: bool, **options: Any) -> None:
        super().__init__(**options)
        self.listener = listener
        self.known: KnownData = KnownData(self, listener, with_state)

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        run = super().dispatch
        if not self.listener.stack:
            return run(func, types, args, kwargs)
        return self.known.run(func, args, kwargs or {}, lambda: run(func, types, args, kwargs))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        listener, run = self.listener, super().__torch_dispatch__
        is_seen = not listener.stack or listener.is_paused or listener.current_operation is not None
        if is_seen or functorch.maybe_current_level() is not None:
            return run(func, types, args, kwargs)
        with listener.paused():
            return listener.record_call(
                _FRESH.get(func, func), args, kwargs or {}, "", lambda: run(func, types, args, kwargs)
            )
