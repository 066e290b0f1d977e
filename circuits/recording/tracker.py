"""`Tracker`: a module that wraps another and prints the sizes of every call, like the Tracker of the notebook.

Source: the appendix of the notebook to Neural Circuit Diagrams.
"""

from collections.abc import Generator, Iterator
from typing import Any, Self

import torch
from torch import nn

from circuits import switch
from circuits.checking import find_circuit
from circuits.errors import CircuitError, described, entry_points
from circuits.recording.printer import numbers_text, small_tensors
from circuits.recording.sinks import Sink, writer
from circuits.recording.tracker_calls import plain_call, process_rank, signed_call, sizes_text
from circuits.tracebacks import users_frame


@entry_points("forward", "__init__")
class Tracker(nn.Module):
    """A module that wraps another and prints the sizes of its inputs and outputs on every call.

    Wrap a layer where it is created, `self.Cq = Tracker(nn.Conv2d(...), "Cq", "b c h w -> b k h' w'")`, and every call
    prints `Cq: 1 33 16 16 -> 1 32 5 5` and the signature. Otherwise a tracker behaves like the wrapped module: the
    parameters and buffers of a model have the same names with and without trackers (`named_parameters`, `state_dict`,
    `torch.func.functional_call`), a tracker has the length and the parts of the wrapped module, and attributes that
    only the wrapped module has are read from it and set on it: `model.Cq.weight`. Nothing is printed under
    `torch.compile`, or while `trace` or `track` records the call.

    Args:
        module: The module to wrap.
        name: The name to print; empty: the name of the module's class.
        signature: The axes of the inputs and outputs, checked on every call and printed after the sizes; None: the
            signature of the wrapped module is printed if it has one.
        to: Where lines are printed: "stdout", a stream, a logger (at INFO), a function that is called with each line,
            or None to print nothing. A copied or unpickled tracker that printed to a stream prints nothing.
        times: The number of calls that are printed; None: all.
        rank: The rank of the process that prints in a distributed run; None: every process prints.
        values: Outputs with at most this many elements are printed with their values; 0: none.

    Raises:
        SignatureError: `signature` cannot be parsed.
        ShapeError: On a call, the tensors do not fit the signature.
        CircuitError: `module` is no module. On a call that is to be printed, `to` is none of the above.

    Source: the notebook's Tracker, which called `module.forward` and so skipped hooks, and took a single tensor.
    """

    declared_at: str = ""
    """The line that made the tracker; older pickles have none."""

    def __init__(
        self,
        module: nn.Module,
        name: str = "",
        signature: str | None = None,
        *,
        to: Sink = "stdout",
        times: int | None = None,
        rank: int | None = None,
        values: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise CircuitError(f'Tracker takes a module, then a name, not {described(module)}: Tracker(layer, "head")')
        frame = users_frame()
        self.declared_at = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
        self.module = module
        self.name: str = name or type(module).__name__
        self.signature = signature
        self.sink, self.times, self.rank, self.values = to, times, rank, values
        self.printed: int = 0
        self.run = plain_call if signature is None else signed_call(signature, self.name, self.declared_at)
        self.register_state_dict_post_hook(_out)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped module, print a line if this call is to be printed, and return the result."""
        result = self.run(self, *args, **kwargs)
        if self._prints():
            self._print((args, kwargs), result)
        return result

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        wrapped = self.__dict__.get("_modules", {}).get("module")
        is_own = wrapped is None or name in self.__dict__ or name == "module" or hasattr(type(self), name)
        if not is_own and hasattr(wrapped, name):
            setattr(wrapped, name, value)
            return
        super().__setattr__(name, value)
        if name == "module":
            self._share_state()

    def _share_state(self) -> None:
        """Use the wrapped module's own tables of parameters and buffers, so that each has one name in both modules."""
        self.__dict__.update(_parameters=self.module._parameters, _buffers=self.module._buffers)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module], None, None]:
        """Yield this module, the wrapped one as `module`, and its parts by the names that they have without a tracker.

        Args:
            memo: The modules to leave out, to which every yielded one is added; None: none.
            prefix: What comes before each name.
            remove_duplicate: Whether a module that is found twice is yielded once. If not, the wrapped module is left
                out, so that a parameter which this module shares with it has one name.
        """
        chain = [self.module]
        while isinstance(chain[-1], Tracker):
            chain.append(chain[-1].module)
        inner = f"{prefix}.module." if prefix else "module."
        for name, module in super().named_modules(memo, prefix, remove_duplicate):
            is_wrapped = any(module is each for each in chain)
            if name.startswith(inner) and not is_wrapped:
                name = inner.removesuffix("module.") + name.removeprefix(inner)
            if remove_duplicate or not is_wrapped:
                yield name, module

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.module._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Save nothing here: the wrapped module, a part of this one, saves what both have."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Only rename the keys: the wrapped module, a part of this one, loads what both have."""
        _into(self, state_dict, prefix)

    def __len__(self) -> int:
        return len(self.module)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.module)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.module)  # type: ignore[call-overload]

    def __getitem__(self, index: Any) -> Any:
        return self.module[index]  # type: ignore[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.module[index] = value  # type: ignore[index]

    def _prints(self) -> bool:
        """Return whether this call is to be printed."""
        if self.sink is None or (self.times is not None and self.printed >= self.times):
            return False
        if torch.compiler.is_compiling() or (switch.active and switch.current() is not None):
            return False
        return self.rank is None or process_rank() == self.rank

    def _print(self, inputs: Any, result: Any) -> None:
        self.printed += 1
        known = find_circuit(self.module)
        axes = self.signature or (str(known.signature) if known is not None else "")
        line = f"{self.name}: \t {sizes_text(inputs)} -> {sizes_text(result)}"
        write = writer(self.sink)
        write(f"{line} \t {axes}" if axes else line)
        for tensor in small_tensors(result, self.values):
            write(numbers_text(tensor))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without `run`, and with `sink` None if it is a stream, which cannot be pickled."""
        kept = {name: value for name, value in self.__dict__.items() if name != "run"}
        return {**kept, "sink": None if hasattr(self.sink, "write") else self.sink}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share_state()
        self.run = plain_call if self.signature is None else signed_call(self.signature, self.name, self.declared_at)


def _into(tracker: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the keys of a state dict before it is loaded: from `weight`, as without a tracker, to `module.weight`.

    Pickled trackers refer to this function and to `_out` by name.
    """
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}module.{key.removeprefix(prefix)}"] = state.pop(key)
    versions: dict[str, Any] = getattr(state, "_metadata", {})
    root = prefix.removesuffix(".")
    for path in [path for path in versions if path == root or path.startswith(prefix)]:
        versions.setdefault(f"{prefix}module.{path.removeprefix(root).removeprefix('.')}".rstrip("."), versions[path])


def _out(tracker: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the keys of a state dict when it is saved: from `module.weight` to `weight`, as without a tracker."""
    for key in [key for key in state if key.startswith(f"{prefix}module.")]:
        state[prefix + key.removeprefix(f"{prefix}module.")] = state.pop(key)
    versions: dict[str, Any] = getattr(state, "_metadata", {})
    root = prefix.removesuffix(".")
    for path in [path for path in versions if path == f"{prefix}module" or path.startswith(f"{prefix}module.")]:
        inner = path.removeprefix(f"{prefix}module").removeprefix(".")
        versions[f"{root}.{inner}".strip(".")] = versions.pop(path)
