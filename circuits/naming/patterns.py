"""Name the axes of the tensors that an einops pattern is applied to."""

import re
from collections.abc import Sequence
from typing import Any

from circuits.naming.axes import AxisNode
from circuits.naming.names import Names
from circuits.signature import Axes, parse_axes

_WORD = re.compile(r"\([^)]*\)|[^\s()]+")


def read_axes(text: str) -> Axes:
    """Return the terms of one tensor of an einops pattern; `...` may be at any position, and `()` is 1."""
    return tuple([term for word in _WORD.findall(text) for term in parse_axes("1" if word == "()" else word)])


def name_by_pattern(
    pattern: str, inputs: Sequence[int], sizes: dict[str, Any], outputs: Sequence[int], names: Names
) -> None:
    """Name the axes of an operation's inputs and outputs by its einops pattern.

    Axes of the same name are unified, and axes without a name get the name in the pattern. The text after a colon, the
    index maps of windows in unfold and fold, is ignored.

    Args:
        pattern: The pattern, `"b (h k) -> b h k"`. Before the arrow are the axes of each input, separated by commas; or
            those of a list of inputs, whose first axis is the position in the list.
        inputs: The numbers of the input tensors.
        sizes: The axis sizes passed with the pattern, by name.
        outputs: The numbers of the output tensors.
        names: The axes of all values; the axes of the outputs are set.

    Raises:
        ValueError: If the pattern has an anonymous axis `_`, cannot be parsed, or does not have as many tensors as
            there are inputs. No axis is named then.
    """
    left, right = pattern.partition(":")[0].split("->")
    matcher = names.matcher(sizes=sizes)
    sides = [read_axes(text) for text in left.split(",")]
    result = read_axes(right)
    if any(term.names[:1] == ("_",) for terms in (*sides, result) for term in terms):
        raise ValueError("an anonymous axis")
    if len(sides) not in (1, len(inputs)):
        raise ValueError(f"{len(sides)} tensors in the pattern, and {len(inputs)} inputs")
    if len(sides) == 1 and len(inputs) > 1:
        count = AxisNode(len(inputs))
        for number in inputs:
            matcher.match_input(sides[0], [count, *names.of(number)])
    else:
        for terms, number in zip(sides, inputs, strict=True):
            matcher.match_input(terms, names.of(number))
    for number in outputs:
        names.put(number, matcher.axes_for(result, names.shapes[number]))
