"""`simplify`: dead code and common subexpressions of a diagram are removed, contractions are fused.

Only pure operations are removed or replaced: those that draw random numbers, write, or keep statistics stay where they
are. Results do not change, except for rounding where contractions are fused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from circuits.autodiff.ports import flow, needed, port_values
from circuits.autodiff.rewrites.common_subexpressions import Eliminator
from circuits.autodiff.rewrites.fusion import fused
from circuits.autodiff.rewrites.purity import is_pure
from circuits.diagram import Box, Diagram, Scalar, Struct, Value, substitute, wires
from circuits.errors import entry_point


@entry_point
def simplify(diagram: Diagram) -> Diagram:
    """Return an equivalent diagram with fewer operations.

    - Boxes whose results are unused are removed.
    - Of two boxes that apply the same operation to the same values, the second is removed.
    - Operations that change nothing are removed: views and copies that leave a tensor as it is, products with 1, a
      transpose that undoes another.
    - An einsum of an einsum becomes one einsum, if the intermediate result has no other use, both belong to the same
      circuit or module, and that takes no more operations (free axes are tried small and large). An einsum reads
      tensors directly and not their transposes.
    - A row sum of a product is computed from the result of an earlier contraction where that takes fewer operations:
      in attention's backward, the sum of P∘dP from O.

    A box that runs as a whole, such as one with a transform inside, stays as it is. `view` becomes `reshape`, since a
    removed box may have changed the strides of a tensor.

    Args:
        diagram: The diagram, which is not changed.

    >>> import torch
    >>> from circuits import backward
    >>> twice = backward(lambda x: x.exp() * x.exp(), torch.ones(2))
    >>> [len([box for box in each.walk() if box.call]) for each in (twice, simplify(twice))]
    [8, 4]
    """
    if diagram.box.call is not None:
        return diagram
    eliminator = Eliminator(diagram)
    boxes: Sequence[Box] = eliminator.remaining(diagram.box.boxes)
    result, *after = [
        substitute(each, eliminator.wire, _unchanged)
        for each in (diagram.result, *[change.after for change in diagram.changes])
    ]
    wanted = set(wires(Struct(tuple, (), (result, *after))))
    boxes, _ = needed(boxes, wanted, _has_effects)
    if eliminator.writes_nothing:
        boxes, _ = needed(fused(boxes, eliminator.values, tuple(wanted)), wanted, _has_effects)
    values = eliminator.values | port_values([diagram.box])
    outputs = [values[eliminator.number(value.number)] for value in diagram.outputs]
    box = replace(
        diagram.box,
        boxes=_with_exact_ports(boxes, wanted, eliminator.values),
        outputs=tuple([replace(new, axes=old.axes) for old, new in zip(diagram.outputs, outputs, strict=True)]),
    )
    changes = [replace(change, after=new) for change, new in zip(diagram.changes, after, strict=True)]
    return replace(diagram, box=box, result=result, changes=tuple(changes))


def _has_effects(box: Box) -> bool:
    return not is_pure(box)


def _with_exact_ports(boxes: Sequence[Box], wanted: set[int], values: Mapping[int, Value]) -> tuple[Box, ...]:
    """Return boxes with exactly the inputs and outputs that are used; `wanted` are read after the last box."""
    later, found = set(wanted), []
    for box in reversed(boxes):
        here = flow([box])
        if box.call is None:
            known = {**values, **port_values(box.boxes), **port_values([box])}
            into = [number for number in here.read if number in known]
            out = [number for number in here.made if number in later and number in known]
            ports = [tuple([known[number] for number in numbers]) for numbers in (into, out)]
            inner = _with_exact_ports(box.boxes, set(out), values)
            box = replace(box, inputs=ports[0], outputs=ports[1], boxes=inner)
        later |= set(here.read)
        found.append(box)
    return tuple(reversed(found))


def _unchanged(scalar: Scalar) -> Scalar:
    return scalar
