"""The open boxes of a run, and the box or call in which an exception was raised."""

from circuits.recording.events import Call, Enter


class OpenBoxes(list[Enter]):
    """The events that opened the boxes around the running code, the innermost last.

    Attributes:
        error_noted: Whether an event stores the exception that is propagating. It is reset when the next call or box
            starts, because the code must have caught the exception by then.
        error_path: The labels of the boxes, and of the operation, in which the exception was raised.
        is_of_operation: Whether it was raised in an operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error_noted = False
        self.error_path: list[str] = []
        self.is_of_operation = False

    def note_error(self, event: Call | Enter, error: BaseException, operation: str = "") -> bool:
        """Store an exception in an event; return False if an event inside it already stores this exception."""
        if self.error_noted:
            return False
        lines = str(error).strip().splitlines()
        event.error = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        self.error_noted: bool = True
        boxes = [f"{box.path.rpartition('.')[2]} {box.label}".strip() for box in self]
        self.error_path = [*boxes, operation] if operation else boxes
        self.is_of_operation: bool = bool(operation)
        return True

    def mark_whole(self, level: int | None) -> None:
        """Mark the innermost box outside the transform of this level, if any; a diagram runs that box as one call."""
        if level is None:
            return
        for box in reversed(self):
            if box.kind != "transform" and box.level < level:
                box.whole = True
                return
