"""`diagram_of`: what a view of diagrams is given, a diagram or what `trace` takes, as a diagram."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.recording.trace import trace
from circuits.recording.trace_inputs import refuse_target


def diagram_of(
    view: str,
    target: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sizes: Mapping[str, int] | None,
    axes: str | None,
) -> Diagram:
    """Return the target if it is a diagram, and else the diagram of its trace.

    Args:
        view: The name of the public function, for messages.
        target: A diagram, or what `trace` takes.
        args, kwargs, sizes, axes: The arguments of `trace`, which a diagram does not take.

    Raises:
        CircuitError: There are such arguments beside a diagram; and as `trace` raises.
    """
    if not isinstance(target, Diagram):
        refuse_target(view, target)
        return trace(target, *args, sizes=sizes, axes=axes, **kwargs)
    if args or kwargs or sizes is not None or axes is not None:
        raise CircuitError(f"{view}: a diagram takes no arguments of trace: it is recorded already")
    return target
