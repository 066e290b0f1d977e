"""How an operation reads its axes: which it maps over, which it folds into accumulators, across which it reads.

The axes of an operation have letters, as in an einsum: positions with one letter are one index. An operation *maps*
over a letter if its output at an index depends on its inputs at this index only; it *folds* a letter that its outputs
lack if blocks of the axis can be added one by one to accumulators; of any other letter it reads *across*.

`readers` has a rule for each operation. One without a rule is refused where it has the axis in question.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch._ops import OpOverload

from circuits.cost.io.steps import Step, Tensor
from circuits.diagram import Struct
from circuits.naming import Operation, torch_functions

Letters = tuple[Hashable, ...]


@dataclass(frozen=True)
class Reads:
    """How an operation reads its axes.

    Attributes:
        inputs: The letter of each axis of each input; those of an operation that moves axes are None, and its axes are
            followed by name.
        outputs: The same of each output.
        folded: The accumulators of each letter that is folded. The outputs are accumulators themselves.
        extra: How many accumulators of the size of the first output are needed beside the outputs.
        across: For each letter that is read across, what the operation is: "a softmax".
        softmax: The letter of a softmax, whose blocks can be rescaled later.
        linear: Whether the operation is linear in each input, so that an input may be rescaled after it.
        in_place: Whether an output can be written over an input.
    """

    inputs: tuple[Letters | None, ...]
    outputs: tuple[Letters | None, ...]
    folded: Mapping[Hashable, tuple[str, ...]] = field(default_factory=dict)
    extra: int = 0
    across: Mapping[Hashable, str] = field(default_factory=dict)
    softmax: Hashable = None
    linear: bool = False
    in_place: bool = False


Reader = Callable[[Operation, Step], Reads]
READERS: dict[Any, Reader] = {}


def reader(*names: str, special: bool = False, also: Iterable[Any] = ()) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a reader for the torch functions of these names and the callables in `also`."""

    def register(function: Reader) -> Reader:
        for found in (*torch_functions(*names, special=special), *also):
            READERS[found] = function
        return function

    return register


def reads_of(step: Step) -> Reads | None:
    """Return how an operation reads its axes; None if there is no rule for it, or not for these arguments."""
    call: Any = step.box.call
    found = READERS.get(call.function) or READERS.get(_torch_function(call.function))
    if found is None or not isinstance(call.args, Struct):
        return None
    kwargs = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True))
    try:
        return found(Operation(call.function, call.args.parts, kwargs, call.result), step)
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _torch_function(function: Any) -> Any:
    """Return the torch function of an ATen operation; None if there is none."""
    if not isinstance(function, OpOverload):
        return None
    name = function._schema.name.partition("::")[2]
    return next((each for each in torch_functions(name.removeprefix("_"), name) if each in READERS), None)


def seen_axes(tensor: Tensor) -> int:
    """Return the number of axes that an operation sees of a tensor: all but those that vmap hides."""
    return len(tensor.axes) - tensor.mapped


def with_hidden(step: Step, inputs: Sequence[Letters], outputs: Sequence[Letters]) -> dict[str, Any]:
    """Return the letters of the tensors of a step, as arguments of `Reads`; axes that vmap hides have letters by name.

    Raises:
        ValueError: If the letters are not those of the axes that the operation sees.
    """
    found: list[list[Letters]] = []
    for tensors, own in ((step.inputs, inputs), (step.outputs, outputs)):
        pairs = list(zip(tensors, own, strict=True))
        if any(len(letters) != seen_axes(tensor) for tensor, letters in pairs):
            raise ValueError("the letters are of another number of axes")
        found.append([(*[("hidden", each) for each in tensor.axes[: tensor.mapped]], *own) for tensor, own in pairs])
    return {"inputs": tuple(found[0]), "outputs": tuple(found[1])}
