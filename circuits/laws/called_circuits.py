"""The circuits that run when a circuit is called."""

from collections.abc import Callable
from typing import Any

import torch

from circuits import switch
from circuits.checking import Circuit
from circuits.laws.subject import Subject


class _CircuitList:
    """A recorder that lists the circuits that are called, and runs each as without a recorder."""

    def __init__(self) -> None:
        self.found: list[Circuit] = []

    def circuit(self, circuit: Any, owner: Any, args: Any, kwargs: Any, run: Callable[[bool], Any]) -> Any:
        """Add the circuit to the list and return the result of the call."""
        self.found.append(circuit)
        return run(False)

    def verb(self, function: Any, pattern: str, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        """Return the result of the call."""
        return run()

    def show(self, size: Any) -> str:
        """Return a size as text."""
        return f"{size}"


def circuits_in(subject: Subject) -> list[Circuit]:
    """Return the circuits that run, `subject` included, when it is called without and with all optional tensors."""
    recorder = _CircuitList()
    with switch.set_recorder(recorder), torch.no_grad():
        for optional in subject.none_and_all():
            subject(subject.tensors(optional))
    return recorder.found
