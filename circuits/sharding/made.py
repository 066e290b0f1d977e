"""What an operation makes itself: random numbers, and tensors with an axis that none of its split inputs has.

Over a mesh axis for data, each rank makes its own part of such a tensor, as if it were the whole. That is right where
all elements along the axis are alike, and wrong for positions.
"""

from circuits.diagram import Box, Value, operation_name
from circuits.naming import naming_rule
from circuits.sharding.mesh import factors
from circuits.sharding.rules import operation_of

_DRAWN = frozenset(["rand", "randn", "randint", "normal"])
_FILLED = frozenset(f"{new}{name}" for new in ("", "new_") for name in ("ones", "zeros", "full", "empty"))


def is_random(box: Box) -> bool:
    """Return whether an operation draws random numbers: noise, and dropout that drops anything."""
    operation = operation_of(box)
    name = naming_rule(operation.function)
    if name == "attention":
        return bool(operation.get(4, "dropout_p", 0.0))
    if name != "random" or "dropout" not in box.label:
        return name == "random" or operation_name(operation.function) in {*_DRAWN, "randperm"}
    return bool(operation.get(1, "p", 0.5)) and bool(operation.get(2, "training", True))


def is_alike(box: Box, output: Value, dim: int) -> bool:
    """Return whether an output of an operation is the same at each index of an axis, but for chance."""
    function = operation_of(box).function
    rule, name = naming_rule(function), operation_name(function)
    if rule == "random" or name in _DRAWN | _FILLED:
        return True
    if not box.inputs or ("repeat" not in (rule, name) and rule not in ("expand", "expand_as")):
        return False
    source = box.inputs[0]
    if not rule:  # with a pattern, whose new axes are copies
        known = {part for label in source.axes for part in factors(label)}
        return bool(factors(output.axes[dim])) and factors(output.axes[dim])[0] not in known
    place = dim - len(output.axes)
    return len(source.axes) < -place or source.sizes[place] == 1


__all__ = ["is_alike", "is_random"]
