"""Write the lines of the quick check: assignments, and conditions under which it refuses the call.

Conditions are collected until the next assignment and then written as one `if`.
"""

from typing import Any

from circuits.checking.declaration import Circuit
from circuits.checking.expressions import Expression, text_of
from circuits.checking.parameters import parameters_of


class CheckWriter:
    """The lines of one circuit's check that are already written, and the conditions not yet written.

    Every name in the lines begins with `prefix`, except the parameters of the function. `complete` are the lines that
    run instead of the rest of the function when the quick check refuses: they call the complete check.
    """

    def __init__(self, circuit: Circuit, prefix: str) -> None:
        self.prefix = prefix
        self.complete: list[str] = []
        self.indent = ""
        self._lines: list[str] = []
        self._conditions: list[str] = []
        self._count = 0
        self._parameters = frozenset(each.name for each in parameters_of(circuit.definition))

    def builtin(self, name: str) -> str:
        """Return the source of a builtin: its name, or if a parameter has this name, the same with the prefix."""
        return f"{self.prefix}{name}" if name in self._parameters else name

    def take_lines(self) -> list[str]:
        """Return the lines written so far, including the collected conditions, and clear them."""
        self.flush()
        lines, self._lines = self._lines, []
        return lines

    def new_name(self, kind: str) -> str:
        """Return a variable name that was not used before."""
        self._count += 1
        return f"{self.prefix}{kind}{self._count}"

    def write(self, line: str) -> None:
        """Write a line, after the conditions collected so far."""
        self.flush()
        self._lines.append(f"{self.indent}{line}")

    def refuse_if(self, condition: str) -> None:
        """Collect a condition under which the quick check refuses the call."""
        self._conditions.append(condition)

    def flush(self) -> None:
        """Write the collected conditions as one `if`, which runs the lines `complete`."""
        if self._conditions:
            condition = f"if {' or '.join(self._conditions)}:"
            self._conditions.clear()
            self.write(condition)
            for line in self.complete:
                self.write(f"    {line}")

    def divide(self, size: Any, by: Any) -> Any:
        """Return the quotient of two sizes; it is refused if there is a remainder or the divisor is 0."""
        if by == 1:
            return size
        top, bottom = text_of(size), text_of(by)
        self.refuse_if(f"{top} % {bottom} != 0" if isinstance(by, int) and by else f"{bottom} == 0 or {top} % {bottom}")
        return self.assign(Expression(f"{top} // {bottom}"))

    def assign(self, size: Any) -> Any:
        """Assign a size to a new variable and return that variable; a number or a variable is returned as it is."""
        if isinstance(size, int) or size.text.isidentifier():
            return size
        name = self.new_name("n")
        self.write(f"{name} = {size.text}")
        return Expression(name)
