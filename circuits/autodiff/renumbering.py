"""A box with other value numbers: in its ports, its call, and the boxes inside it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from circuits.diagram import Box, Value, Wire, substitute


def renumbered(box: Box, numbers: Mapping[int, int]) -> Box:
    """Return the box with value `n` replaced by `numbers[n]` wherever it occurs; values not in `numbers` stay."""
    if not numbers:
        return box

    def wire(old: Wire) -> Wire:
        return Wire(numbers.get(old.number, old.number))

    def in_values(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple([replace(value, number=numbers.get(value.number, value.number)) for value in values])

    def in_description(description: Any) -> Any:
        return substitute(description, wire, lambda scalar: scalar)

    def in_call(call: Any) -> Any:
        if call is None:
            return None
        return replace(
            call,
            args=in_description(call.args),
            kwargs=in_description(call.kwargs),
            result=in_description(call.result),
        )

    return replace(
        box,
        inputs=in_values(box.inputs),
        outputs=in_values(box.outputs),
        given=in_description(box.given),
        inside=in_values(box.inside),
        boxes=tuple([renumbered(inner, numbers) for inner in box.boxes]),
        call=in_call(box.call),
        reverse=in_call(box.reverse),
        mutates=tuple([numbers.get(number, number) for number in box.mutates]),
    )
