"""The open boxes of a run, and in which of them an exception was raised."""

from circuits.recording.events import Call, Enter


class OpenBoxes(list[Enter]):
    """The events that opened the boxes around the running code, the innermost last.

    Attributes:
        error_noted: Whether an event stores the exception that is propagating. The next event that starts resets it: if
            anything runs after an error, the code has caught that error.
        error_path: The boxes, and the operation, in which that exception was raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error_noted = False
        self.error_path: list[str] = []

    def note_error(self, event: Call | Enter, error: BaseException, operation: str = "") -> bool:
        """Store an exception on the event in which it was raised; return False if an event inside it stores it."""
        if self.error_noted:
            return False
        lines = str(error).strip().splitlines()
        event.error = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        self.error_noted = True
        boxes = [f"{box.path.rpartition('.')[2]} {box.label}".strip() for box in self]
        self.error_path = [*boxes, operation] if operation else boxes
        return True

    def mark_whole(self, level: int) -> None:
        """Mark the innermost box outside the transform of this level: a diagram runs that box as a whole."""
        for box in reversed(self):
            if box.kind != "transform" and box.level < level:
                box.whole = True
                return
