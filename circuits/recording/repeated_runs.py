"""Hold back the lines of a module that repeats the module before it, while a run is printed.

`blocks.1` repeats `blocks.0` if the same operations run in it on tensors of the same sizes. Whether it does is known at
its end; until then its lines are held, and if an operation fails in it, or it differs, they are printed after all.
"""

from collections.abc import Iterator
from typing import Any

from circuits.recording.builder import Builder
from circuits.recording.drafts import Draft
from circuits.recording.events import Enter

Held = tuple[Draft, int, bool]
"""A box, its depth, and whether it was running when its line was held."""


class Fold:
    """The module whose lines are held, if any.

    Args:
        builder: The builder of the run.

    Attributes:
        module: The module whose lines are held; None if no lines are.
        lines: These lines.
        origins: For a module for which one line stands, the one whose lines are printed.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.module: Draft | None = None
        self.lines: list[Held] = []
        self.origins: dict[Draft, Draft] = {}
        self._last: tuple[Draft, Any] | None = None

    def open(self, draft: Draft) -> None:
        """Begin to hold lines if a module may repeat the one before it."""
        if self.module is None and _before(draft) is not None:
            self.module = draft

    def hold(self, draft: Draft, depth: int, is_open: bool) -> bool:
        """Hold a line if lines are held, and return whether."""
        if self.module is None:
            return False
        self.lines.append((draft, depth, is_open))
        return True

    def close(self, draft: Draft, depth: int) -> Iterator[Held | str]:
        """Yield what is to be printed when a box ends: the line that stands for those held, or these lines."""
        if self.module is None or (draft is not self.module and not draft.failed):
            return
        module, lines = self.module, self.lines
        self.module, self.lines = None, []
        before = _before(module)
        if before is None or draft.failed or not self._repeats(module, before):
            yield from lines
        elif lines:
            origin = self.origins[module] = self.origins.get(before, before)
            name = origin.event.path.rpartition(".")[2]
            yield f"{'  ' * (depth + 1)}… {len(lines)} lines as in {name}"

    def _repeats(self, draft: Draft, before: Draft) -> bool:
        """Return whether the lines of two boxes show the same; the content of the last one is kept for the next."""
        last = self._last[1] if self._last is not None and self._last[0] is before else self._content(before)
        self._last = draft, self._content(draft)
        return self._last[1] == last

    def _content(self, draft: Draft) -> tuple[Any, ...]:
        """Return what the lines of a box show, except names."""
        event, values = draft.event, self.builder.record.values
        label = (event.label, event.circuit) if type(event) is Enter else (event.function, event.pattern)
        ports = [values[number][:2] for number in (*draft.reads, *draft.makes)]
        return label, ports, event.error, [self._content(inner) for inner in draft.boxes]


def _before(draft: Draft) -> Draft | None:
    """Return the module that ran before this one in the same list of modules, if it is of the same class."""
    beside = draft.parent.boxes if draft.parent is not None else []
    before = next((each for each in reversed(beside[:-1]) if isinstance(each.event, Enter)), None)
    if before is None or draft.event.kind not in ("module", "circuit") or before.event.label != draft.event.label:
        return None
    (stem, _, number), (stem_before, _, number_before) = [each.event.path.rpartition(".") for each in (draft, before)]
    follows = number.isdigit() and number_before.isdigit() and int(number) > int(number_before)
    return before if stem == stem_before and follows and not before.failed else None


__all__ = ["Fold", "Held"]
