"""The wires of a tensor under the chosen options: ordered, paired, hidden, or one for the whole tensor."""

from dataclasses import replace

from circuits.diagram import Value, size_text
from circuits.drawing.operations import SCALAR
from circuits.drawing.options import Options, base
from circuits.drawing.scene import Wire


def wires_of(value: Value, options: Options, role: str = "wire") -> tuple[Wire, ...]:
    """Return the wires of a tensor, in the order of its axes.

    Args:
        value: The tensor.
        options: The order, the pairs and the hidden axes.
        role: The role of their colour.
    """
    if not value.sizes:
        return (Wire((), "", scalar=True, role=role),)
    names = axis_names(value)
    sizes = [size_text(size) for size in value.sizes]
    if options.wires == "tensors":
        return (Wire(tuple(range(len(names))), _tensor_label(value, options), role=role),)
    found: list[Wire] = []
    axis = 0
    while axis < len(names):
        label = options.pair(names[axis], names[axis + 1]) if axis + 1 < len(names) else None
        merged = merged_pair(names[axis], options)
        if label is not None:
            found.append(Wire((axis, axis + 1), label, double=True, role=role))
            axis += 2
            continue
        if merged is not None:
            found.append(Wire((axis,), merged, double=True, role=role))
        else:
            found.append(Wire((axis,), names[axis], sizes[axis], role=role))
        axis += 1
    shown = [wire for wire in found if not options.hides(wire.name)]
    return tuple(shown) or (Wire((), "", scalar=True, role=role),)


def axis_names(value: Value) -> list[str]:
    """Return the name of each axis, or its size as text if it has none."""
    return [name or size_text(size) for name, size in zip(value.axes, value.sizes, strict=True)]


def _tensor_label(value: Value, options: Options) -> str:
    """Return the label of a whole tensor: `b c h w`, or with sizes `b, c = 3, h = 28, w = 28`."""
    names = axis_names(value)
    shown = [(name, size_text(size)) for name, size in zip(names, value.sizes, strict=True) if not options.hides(name)]
    if not options.show_sizes:
        return " ".join([name for name, _ in shown])
    return ", ".join([name if name == size else f"{name} = {size}" for name, size in shown])


def merged_pair(name: str, options: Options) -> str | None:
    """Return the label of an axis that stands for a pair, which is drawn as the pair is; None for other axes.

    It is a group of the two, `(h/2 w/2)`, or has the name that the pair has in the picture.
    """
    if base(name) in [label for label, _, _ in options.pairs]:
        return name
    inner = name[1:-1].split() if name.startswith("(") and name.endswith(")") else []
    return options.pair(*inner) if len(inner) == 2 else None


def order_of(wires: tuple[Wire, ...], options: Options) -> tuple[int, ...]:
    """Return the places of wires from top to bottom; wires that the order does not name keep that of the data."""
    ranks = [(options.rank(_searched(wire, options)), place) for place, wire in enumerate(wires)]
    return tuple([place for _, place in sorted(ranks)])


def _searched(wire: Wire, options: Options) -> str:
    """Return the name by which a wire is found in the order: for a pair its label and its two axes."""
    for label, one, two in options.pairs:
        if wire.double and label in wire.name:
            return f"{wire.name} {one} {two}"
    return wire.name


def renamed(wires: tuple[Wire, ...], value: Value, options: Options) -> tuple[Wire, ...]:
    """Return the wires of a tensor with the names that it has elsewhere, inside or outside a circuit.

    The same axes stay one wire, so that a wire can be followed through the fence of a circuit.
    """
    if not value.sizes or options.wires == "tensors":
        return tuple([replace(wire, name=_tensor_label(value, options)) for wire in wires])
    fresh = {wire.axes: wire for wire in wires_of(value, options)}
    names, sizes = axis_names(value), [size_text(size) for size in value.sizes]
    found = []
    for wire in wires:
        inside = fresh.get(wire.axes)
        if inside is not None and inside.double == wire.double:
            found.append(replace(wire, name=inside.name, size=inside.size))
        elif len(wire.axes) == 1:
            found.append(replace(wire, name=names[wire.axes[0]], size=sizes[wire.axes[0]]))
        else:
            found.append(replace(wire, name=_both([names[axis] for axis in wire.axes])))
    return tuple(found)


def _both(names: list[str]) -> str:
    """Return the label of a pair of axes without a common name: `16²` for two of one size."""
    return f"{names[0]}²" if len(set(names)) == 1 and names[0].isdigit() else " ".join(names)


def place_of(wires: tuple[Wire, ...], axis: int) -> int | None:
    """Return which wire has this axis; None if it is hidden."""
    found = (place for place, wire in enumerate(wires) if axis in wire.axes or (wire.scalar and axis == SCALAR))
    return next(found, None)


__all__ = ["axis_names", "order_of", "place_of", "renamed", "wires_of"]
