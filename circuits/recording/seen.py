"""The runs that `track` has recorded, as a sequence of diagrams."""

import functools
import inspect
from collections.abc import Callable, Iterator

from circuits.diagram import Diagram
from circuits.errors import CircuitError, entry_point
from circuits.recording.assembly import assemble
from circuits.recording.builder import Builder
from circuits.recording.events import Record
from circuits.recording.recursion import more_frames


class Seen:
    """The runs that `track` recorded: a sequence of diagrams in the order of the runs, each built on first access.

    `len(seen)`, `seen[index]` with an int, and iteration are supported. `print(seen)` prints the table of each diagram.
    The diagram of a run that failed ends with the box that failed. `track` creates the object and adds the runs.
    """

    def __init__(self) -> None:
        self._runs: list[Callable[[], Diagram]] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> Diagram:
        return self._runs[index]()

    def __iter__(self) -> Iterator[Diagram]:
        return iter([run() for run in self._runs])

    @property
    @entry_point
    def diagram(self) -> Diagram:
        """The diagram of the last run.

        Raises:
            CircuitError: No run was recorded.
        """
        if not self._runs:
            raise CircuitError("no run was recorded: the model was not called inside the `with` in this thread")
        return self[-1]

    def __str__(self) -> str:
        return "\n".join([str(diagram) for diagram in self])

    def __repr__(self) -> str:
        """Return the names of the runs and how often each ran: `Seen(3 runs: MLP ×2, Linear)`; no diagram is built."""
        counts = {name: self._names.count(name) for name in self._names}
        text = ", ".join([f"{name} ×{count}" if count > 1 else name for name, count in counts.items()])
        return f"Seen({len(self)} run{'s' * (len(self) != 1)}{f': {text}' if text else ''})"

    def _repr_html_(self) -> str:
        """Return the table of each diagram as HTML, which notebooks show."""
        return "".join([diagram.to_html() for diagram in self]) or f"<p>{self!r}</p>"

    def add(self, record: Record, binder: inspect.Signature | None) -> None:
        """Add a run, for `track`; its diagram is built when it is first accessed."""
        self._names.append(_label(record))
        self._runs.append(functools.cache(lambda: _diagram(record, binder)))


def _label(record: Record) -> str:
    """Return the name of the class or circuit that was called."""
    first = record.events[0] if record.events else None
    circuit = getattr(first, "circuit", None)
    return circuit.name.removesuffix(".forward") if circuit is not None else getattr(first, "label", "")


def _diagram(record: Record, binder: inspect.Signature | None) -> Diagram:
    """Return the diagram of a recorded run."""
    with more_frames():
        return assemble(Builder(record, binder=binder).feed_all())
