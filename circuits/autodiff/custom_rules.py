"""Backward circuits that somebody wrote by hand: how they are called, and whose cotangents they give.

One takes what the definition takes (`self` first, if that is a method), then the cotangents of what the definition
gives. It gives the cotangents of the signature's tensors in order and, last, a dict with those of all else that the
definition reads: of optional tensors by the names of their parameters, of a module's parameters by theirs. None stands
for what has no cotangent. If gradients flow to what it is silent about, that is refused by name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from circuits.autodiff.ports import flow, inside
from circuits.autodiff.rules.registry import RuleError
from circuits.autodiff.workspace import Bench
from circuits.diagram import Box, ByHand, Wire, wires

Given = tuple[Any, Any]
"""What stands at a place, as a description, and its cotangent."""


def reads(box: Box) -> tuple[int, ...]:
    """All that a circuit's definition reads from around it; of one that is run whole, all that it could."""
    if box.call is None:
        return flow(box.boxes).read
    return tuple([value.number for value in (*box.inputs, *box.parameters)])


def cotangents(
    bench: Bench, box: Box, hand: ByHand, filled: Callable[[Any], Any], back: Iterable[Tensor | None]
) -> list[Given]:
    """What a backward circuit gives, each with the place it belongs to; `filled` makes a value of a description."""
    module = bench.owner(hand.owner, hand.path) if isinstance(hand.owner, nn.Module) else None
    owner = () if hand.owner is None else (hand.owner if module is None else module,)
    back = [each for each in back if each is not None]
    answer = hand.function(*owner, *filled(hand.args), *back, **filled(hand.kwargs))
    found = list(answer) if isinstance(answer, (tuple, list)) else [answer]
    named = found.pop() if found and isinstance(found[-1], Mapping) else {}
    if len(found) != hand.inputs:
        raise RuleError(
            f"the backward circuit of {box.label} gives {len(found)} of the {hand.inputs} cotangents of what went in"
        )
    places = _places(bench, hand, module)
    unknown = [name for name in named if name not in places]
    if unknown:
        there = f"there are {', '.join(places)}" if places else "it reads nothing else"
        raise RuleError(f"the backward circuit of {box.label} gives a cotangent of {', '.join(unknown)}; {there}")
    pairs = zip(hand.args.parts, found, strict=False)
    return [*pairs, *[(places[name], cotangent) for name, cotangent in named.items()]]


def _places(bench: Bench, hand: ByHand, module: nn.Module | None) -> dict[str, Any]:
    """Where what may be spoken of by name stands, if it is a tensor; an argument goes before a parameter so called."""
    places: dict[str, Any] = {}
    if module is not None:
        own = (*module.named_buffers(), *module.named_parameters(remove_duplicate=False))
        places |= {name: Wire(bench.wire(tensor)) for name, tensor in own}
    given = dict(zip(hand.names[hand.inputs :], hand.args.parts[hand.inputs :], strict=True))
    given |= dict(zip(hand.kwargs.keys, hand.kwargs.parts, strict=True))
    return places | given


def refuse_silence(box: Box, hand: ByHand, told: Iterable[Given], active: set[int]) -> None:
    """RuleError where gradients flow to what a circuit reads, and its backward circuit does not speak of that."""
    known = {number for place, _ in told for number in wires(place)}
    silent = [number for number in (*wires(hand.args), *wires(hand.kwargs), *reads(box)) if number in active - known]
    if silent:
        values = inside(box.walk())
        names = [values[number].name if number in values else "" for number in dict.fromkeys(silent)]
        what = ", ".join([name or "a tensor that it is not given" for name in names])
        raise RuleError(
            f"the backward circuit of {box.label} is silent about {what}, which the definition reads; after the "
            "cotangents of the signature's tensors it may give a dict of others by name, with None for what has none"
        )
