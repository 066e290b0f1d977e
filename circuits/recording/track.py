"""track and Tracker: see a real run, printed as it happens.

`track(model)` records every call that a model (or a circuit) gets inside a `with`; `Tracker(module)` wraps one module
for good, as the notebook's does. Both see what really ran: a circuit's kernel, not its definition. A tracker is the
one thing in this library that prints, and it can be told where to, or not to.

Source: the appendix of the notebook to Neural Circuit Diagrams.
"""

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils import _pytree

from circuits import switch
from circuits.checking import circuit, find_circuit
from circuits.diagram import Diagram, table
from circuits.errors import CircuitError
from circuits.recording.builder import Builder, assemble, signature_of
from circuits.recording.events import Call, Enter, Event, Leave
from circuits.recording.freezer import Draft
from circuits.recording.interception import watched
from circuits.recording.listener import Listener, uncompiled

Sink = TextIO | logging.Logger | Callable[[str], object] | Literal["stdout"] | None
"""Where lines go: standard output as it is when a line is printed, a stream, a logger (at INFO), a function of one
line, or nowhere."""


class Seen:
    """The runs that a `track` saw: a sequence of diagrams, each built when it is first asked for.

    `print(seen)` gives their tables. A run that failed is there too, up to and with the box that failed.
    """

    def __init__(self) -> None:
        self._runs: list[Callable[[], Diagram]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, place: int) -> Diagram:
        return self._runs[place]()

    def __iter__(self) -> Iterator[Diagram]:
        return iter([run() for run in self._runs])

    @property
    def diagram(self) -> Diagram:
        """The last run; CircuitError if there was none."""
        if not self._runs:
            raise CircuitError("nothing was seen yet: the model was not called inside the `with`, in this thread")
        return self[-1]

    def __str__(self) -> str:
        return "\n".join([str(diagram) for diagram in self])

    def _add(self, builder: Builder) -> None:
        """One more run; what a builder has not been fed, it is fed when somebody looks."""
        self._runs.append(functools.cache(lambda: assemble(builder.fed())))


@contextmanager
def track(target: Any, *, to: Sink = "stdout", depth: int | None = None, values: int = 0) -> Iterator[Seen]:
    """See the calls of a module or circuit inside the `with`, in this thread, as they really run.

    Each box is printed to `to` when it has run, one with others inside when it opens; `depth` leaves out what lies
    deeper, `values` prints the numbers of tensors that have at most so many. When a run fails, the failing box is
    printed with its inputs and the error, and the error goes on. Nothing stays attached to the model; a compiled one
    is run as the code it wraps. CircuitError if `target` is neither a module nor a circuit.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> with track(model, to=None) as seen:
    ...     _ = model(torch.ones(2, 4))
    >>> print(seen)
    Sequential    2 4 -> 2 3  15 params
      0 linear    2 4 -> 2 3  15 params
      1 relu      2 3 -> 2 3
    """
    target = uncompiled(target)
    found = None if isinstance(target, nn.Module) else find_circuit(target)
    if found is None and not isinstance(target, nn.Module):
        raise CircuitError(
            f"track sees the calls of modules and circuits; {target!r} is neither (decorate it, or use trace)"
        )
    seen = Seen()
    listener = Listener(found or target)
    binder = signature_of(target)
    printer = None if to is None else _Printer(writer(to), depth, values)

    def started() -> Builder:
        listener.begin()
        builder = Builder(listener.record, binder=binder)
        if printer is not None:
            printer.builder = builder
            listener.told = printer.told
        return builder

    builder = started()

    def finished() -> None:
        nonlocal builder
        seen._add(builder)
        builder = started()

    listener.finished = finished
    with watched(listener, target):
        yield seen


class _Printer:
    """Prints boxes as they run. A module's line waits until it is clear whether it is one operation."""

    def __init__(self, write: Callable[[str], object], depth: int | None, values: int) -> None:
        self.write = write
        self.depth = depth
        self.values = values
        self.waiting: list[tuple[Draft, int, Any]] = []
        self.builder: Builder

    def told(self, event: Event, answer: Any) -> None:
        """One event: what opened waits, what ran is printed."""
        depth = len(self.builder.open)
        draft = self.builder.feed(event)
        if isinstance(event, Enter):
            if self.waiting and self.waiting[-1][0] is draft:
                return
            self._flush()
            self.waiting.append((draft, depth, None))  # type: ignore[arg-type]
        elif isinstance(event, Leave):
            self._left(draft, answer)  # type: ignore[arg-type]
        elif isinstance(event, Call):
            if len(self.waiting) > 1 or event.error:
                self._flush()
            self.waiting.append((draft, depth, answer))  # type: ignore[arg-type]
            if len(self.waiting) == 1 or event.error:
                self._flush()

    def _left(self, draft: Draft, answer: Any) -> None:
        """A box closes: alone with one operation it is one line; failed, it is told unless something in it was."""
        if [each for each, *_ in self.waiting][:1] == [draft]:
            if draft.event.error:
                self._flush()
            else:
                self._line(draft, self.waiting[0][1], answer)
                self.waiting.clear()
            return
        self._flush()
        if draft.event.error:
            self._line(draft, len(self.builder.open), None)

    def _flush(self) -> None:
        for draft, depth, answer in self.waiting:
            self._line(draft, depth, answer)
        self.waiting.clear()

    def _line(self, draft: Draft, depth: int, answer: Any) -> None:
        if self.depth is not None and depth > self.depth and not draft.event.error:
            return
        with torch._C.DisableTorchFunction():
            box = self.builder.freeze(draft)
            open_still = draft in self.builder.open or (not box.outputs and not box.error)
            self.write(table.line(table.row(box, depth), open_still))
            for tensor in _small(answer, self.values):
                self.write("\n".join(["  " * (depth + 1) + line for line in _numbers(tensor).splitlines()]))


def _small(answer: Any, most: int) -> list[Tensor]:
    """The tensors of an answer that are small enough to print, and hold numbers."""
    leaves = _pytree.tree_leaves(answer) if most else []
    plain = [leaf for leaf in leaves if type(leaf) in (Tensor, nn.Parameter) and not leaf.is_meta]
    return [leaf for leaf in plain if leaf.numel() <= most and not functorch.is_functorch_wrapped_tensor(leaf)]


def _numbers(tensor: Tensor) -> str:
    """The numbers of a tensor in rows and columns."""
    text = str(tensor.detach().cpu()).removeprefix("tensor(")
    return text.partition(", dtype")[0].removesuffix(")").replace("\n       ", "\n")


def writer(to: Any) -> Callable[[str], object]:
    """What writes a line to a sink."""
    if to == "stdout":
        return lambda line: sys.stdout.write(f"{line}\n")
    if isinstance(to, logging.Logger):
        return to.info
    if hasattr(to, "write"):
        return lambda line: to.write(f"{line}\n")
    if callable(to):
        return to
    raise CircuitError(f"a tracker prints to a stream, a logger or a function of one line, not to {type(to).__name__}")


class Tracker(nn.Module):
    """A module that prints the sizes of what goes through another, and is otherwise like it.

    Wrap a layer where it is made, `self.Cq = Tracker(nn.Conv2d(...), "Cq", "b c h w -> b k h' w'")`, and every call
    prints `Cq: 1 33 16 16 -> 1 32 5 5`. The name defaults to the class's; a signature is checked (ShapeError) and its
    axes are printed too, as are those of a module that has one. `to` is where lines go (None: nowhere), `times` how
    many calls are printed, `rank` the one process of a distributed run that prints, `values` up to how many numbers
    a tensor may have to be printed in full. The `state_dict` is that of the module inside, and so are all attributes
    that a tracker has not itself: `model.Cq.weight` is the convolution's, to read and to replace.

    Source: the notebook's Tracker, which called `module.forward` and so skipped hooks, and took one tensor alone.
    """

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
        self.module = module
        self.name = name or type(module).__name__
        self.signature = signature
        self.sink, self.times, self.rank, self.values = to, times, rank, values
        self.printed = 0
        self.run = _plain if signature is None else _signed(signature, self.name)
        self.register_load_state_dict_pre_hook(_into)
        self.register_state_dict_post_hook(_out)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives."""
        answer = self.run(self, *args, **kwargs)
        if self._prints():
            self._print((args, kwargs), answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inside = self.__dict__.get("_modules", {}).get("module")
        own = inside is None or name in self.__dict__ or name == "module" or hasattr(type(self), name)
        if own or not hasattr(inside, name):
            super().__setattr__(name, value)
        else:
            setattr(inside, name, value)

    def _prints(self) -> bool:
        if self.sink is None or (self.times is not None and self.printed >= self.times):
            return False
        if torch.compiler.is_compiling() or (switch.active and switch.current() is not None):
            return False
        return self.rank is None or _rank() == self.rank

    def _print(self, inputs: Any, answer: Any) -> None:
        self.printed += 1
        known = find_circuit(self.module)
        axes = self.signature or (str(known.signature) if known is not None else "")
        line = f"{self.name}: \t {_sizes(inputs)} -> {_sizes(answer)}"
        write = writer(self.sink)
        write(f"{line} \t {axes}" if axes else line)
        for tensor in _small(answer, self.values):
            write(_numbers(tensor))

    def __getstate__(self) -> dict[str, Any]:
        """A stream cannot be pickled or copied with the model; standard output is found again."""
        kept = {name: value for name, value in self.__dict__.items() if name != "run"}
        return {**kept, "sink": None if hasattr(self.sink, "write") else self.sink}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.run = _plain if self.signature is None else _signed(self.signature, self.name)


def _plain(tracker: Tracker, *args: Any, **kwargs: Any) -> Any:
    return tracker.module(*args, **kwargs)


@functools.cache
def _signed(signature: str, name: str) -> Any:
    """A call of the module inside that checks a signature, under the tracker's name."""

    def forward(self: Tracker, *tensors: Any, **others: Any) -> Any:
        return self.module(*tensors, **others)

    forward.__qualname__ = name
    return circuit(signature)(forward)


def _sizes(value: Any) -> str:
    tensors = [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return ", ".join([" ".join([f"{size}" for size in tensor.shape]) for tensor in tensors])


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _into(tracker: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before loading: the names that the module inside has without the tracker."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}module.{key.removeprefix(prefix)}"] = state.pop(key)
    versions: dict[str, Any] = getattr(state, "_metadata", {})
    root = prefix.removesuffix(".")
    for path in [path for path in versions if path == root or path.startswith(prefix)]:
        versions.setdefault(f"{prefix}module.{path.removeprefix(root).removeprefix('.')}".rstrip("."), versions[path])


def _out(tracker: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """After saving: the same names again."""
    for key in [key for key in state if key.startswith(f"{prefix}module.")]:
        state[prefix + key.removeprefix(f"{prefix}module.")] = state.pop(key)
    versions: dict[str, Any] = getattr(state, "_metadata", {})
    root = prefix.removesuffix(".")
    for path in [path for path in versions if path == f"{prefix}module" or path.startswith(f"{prefix}module.")]:
        inner = path.removeprefix(f"{prefix}module").removeprefix(".")
        versions[f"{root}.{inner}".strip(".")] = versions.pop(path)
