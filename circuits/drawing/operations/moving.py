"""Drawing rules of operations that move, index, join and split axes: crossings, pentagons and bars."""

from typing import Any

from circuits.diagram import Struct, Wire
from circuits.drawing.marks import Span
from circuits.drawing.operations.reading import SCALAR, Drawn, Reading, on_axes, passing, rule
from circuits.drawing.scene import Link


@rule("permute transpose swapaxes swapdims movedim moveaxis T mT t H mH adjoint")
def permute(reading: Reading) -> Drawn | None:
    """Wires cross."""
    value, out = reading.tensors[0], reading.box.outputs[0]
    order = _order(reading, len(value.sizes))
    if order is None or sorted(order) != list(range(len(out.sizes))):
        return None
    links = passing([((0, old), (0, new)) for new, old in enumerate(order)]) or [_scalar()]
    return Drawn((value,), (out,), tuple(links))


def _scalar() -> Link:
    return Link("pass", ((0, SCALAR),), ((0, SCALAR),))


def _order(reading: Reading, rank: int) -> list[int] | None:
    """Return the old place of each axis of the result."""
    name = reading.function_name
    if name == "permute":
        dims = reading.operation.sequence(1, "dims")
        return [int(dim) % rank for dim in dims] if rank else []
    order = list(range(rank))
    if name in ("T", "t"):
        return order[::-1]
    if name in ("mT", "H", "mH", "adjoint"):
        return [*order[:-2], *order[:-3:-1]]
    names = {"movedim": ("source", "destination"), "moveaxis": ("source", "destination")}.get(name, ("dim0", "dim1"))
    names = {"swapaxes": ("axis0", "axis1")}.get(name, names)
    first, second = (reading.get(place, each) for place, each in enumerate(names, start=1))
    if not rank:
        return []
    if name in ("movedim", "moveaxis"):
        sources, targets = (
            [dim % rank for dim in (dims if isinstance(dims, list) else [dims])] for dims in (first, second)
        )
        moved = dict(zip(targets, sources, strict=True))
        others = iter([axis for axis in order if axis not in sources])
        return [moved[place] if place in moved else next(others) for place in order]
    order[first % rank], order[second % rank] = order[second % rank], order[first % rank]
    return order


@rule("expand broadcast_to expand_as")
def expand(reading: Reading) -> Drawn | None:
    """New axes begin; an axis of size 1 that is repeated ends, and the new one begins in its place."""
    value, out = reading.tensors[0], reading.box.outputs[0]
    lead = len(out.sizes) - len(value.sizes)
    links = [Link("start", (), ((0, axis),)) for axis in range(lead)]
    for axis, size in enumerate(value.sizes):
        here, there = (0, axis), (0, axis + lead)
        same = bool(size == out.sizes[axis + lead])
        links += [Link("pass", (here,), (there,))] if same else [Link("glyph", (here,), (there,), "bar")]
    links += [] if value.sizes else [Link("end", ((0, SCALAR),))] if out.sizes else [_scalar()]
    return Drawn((value,), (out,), tuple(links))


@rule("index getitem select narrow")
def index(reading: Reading) -> Drawn | None:
    """An axis that is indexed by a number ends at a pentagon (Figure 8); a slice is a box on its axis."""
    value, outputs = reading.tensors[0], reading.box.outputs
    items = _items(reading, len(value.sizes))
    if items is None or len(outputs) != 1 or len(reading.tensors) != 1:
        return None
    links: list[Link] = []
    axis = made = 0
    for item in items:
        if item is None:
            links.append(Link("start", (), ((0, made),)))
            made += 1
            continue
        here, there = (0, axis), (0, made)
        axis += 1
        if isinstance(item, slice):
            whole = item == slice(None) or (
                item.start in (None, 0) and bool(value.sizes[axis - 1] == outputs[0].sizes[made])
            )
            text = (Span(_slice_text(reading, item), "sans"),)
            links.append(Link("pass", (here,), (there,)) if whole else Link("glyph", (here,), (there,), "box", text))
            made += 1
        else:
            links.append(Link("glyph", (here,), (), "pentagon", reading.spans(item)))
    if axis != len(value.sizes) or made != len(outputs[0].sizes):
        return None
    if not outputs[0].sizes:
        links.append(Link("start", (), ((0, SCALAR),)) if value.sizes else _scalar())
    elif not value.sizes:
        links.append(Link("end", ((0, SCALAR),)))
    return Drawn((value,), outputs, tuple(links))


def _items(reading: Reading, rank: int) -> list[Any] | None:
    """Return one item for each axis, and None for each new one; None in all if the index is no number or slice."""
    name = reading.function_name
    if name == "select" and rank:
        items: list[Any] = [slice(None)] * rank
        items[reading.get(1, "dim") % rank] = reading.get(2, "index")
        return items
    if name == "narrow" and rank:
        items = [slice(None)] * rank
        start, length = reading.get(2, "start"), reading.get(3, "length")
        items[reading.get(1, "dim") % rank] = slice(start, start + length)
        return items
    given = reading.operation.raw(1, "")
    several = given.parts if getattr(given, "kind", None) in (tuple, list) else given
    found = [_plain(item) for item in (several if type(several) is tuple else [several])]
    if any(isinstance(item, bool | Wire | Struct | list) for item in found):
        return None
    used = sum(item is not None and item is not ... for item in found)
    if ... not in found:
        found.append(...)
    place = next(number for number, item in enumerate(found) if item is ...)
    return [*found[:place], *[slice(None)] * (rank - used), *found[place + 1 :]]


def _plain(item: Any) -> Any:
    """Return an item of an index as plain data: a slice with formulas is recorded as a description of a slice."""
    if getattr(item, "kind", None) is slice:
        return slice(*[getattr(part, "expression", part) for part in item.parts])
    return getattr(item, "expression", item)


def _slice_text(reading: Reading, item: slice) -> str:
    texts = [
        "" if part is None else "".join(span.text for span in reading.spans(part)) for part in (item.start, item.stop)
    ]
    step = "" if item.step in (None, 1) else f":{item.step}"
    return f"[{texts[0]}:{texts[1]}{step}]"


@rule("eye")
def eye(reading: Reading) -> Drawn | None:
    """An identity matrix is a unit, the cup turned round (Figure 18)."""
    out = reading.box.outputs[0]
    if len(out.sizes) != 2 or out.sizes[0] != out.sizes[1]:
        return None
    return Drawn((), (out,), (Link("unit", (), ((0, 0), (0, 1))),))


@rule("cat concat concatenate stack")
def join(reading: Reading) -> Drawn | None:
    """The concatenated axes meet in a bar, the other axes in dots (Figure 27); a stack begins a new axis at a bar."""
    tensors, out = reading.tensors, reading.box.outputs[0]
    rank = len(out.sizes)
    dim = (reading.get(1, "dim", reading.get(1, "axis", 0)) or 0) % rank
    if len(tensors) == 1:
        return None
    if reading.function_name == "stack":
        others = [axis for axis in range(rank) if axis != dim]
        links = [
            Link("join", tuple([(place, old) for place in range(len(tensors))]), ((0, new),))
            for old, new in enumerate(others)
        ]
        scalars = tuple([(place, SCALAR) for place in range(len(tensors))]) if rank == 1 else ()
        return Drawn(tensors, (out,), (*links, Link("glyph", scalars, ((0, dim),), "bar")))
    if any(len(value.sizes) != rank for value in tensors):
        return None
    links = []
    for axis in range(rank):
        ins = tuple([(place, axis) for place in range(len(tensors))])
        links.append(Link("glyph", ins, ((0, axis),), "bar") if axis == dim else Link("join", ins, ((0, axis),)))
    return Drawn(tensors, (out,), tuple(links))


@rule("split chunk tensor_split split_with_sizes unbind hsplit vsplit")
def split(reading: Reading) -> Drawn | None:
    """The axis that is split enters a bar, and its parts leave it; each other axis is copied at a dot."""
    value, outputs = reading.tensors[0], reading.box.outputs
    position = 1 if reading.function_name == "unbind" else 2
    dim = (reading.get(position, "dim", 0) or 0) % max(len(value.sizes), 1)
    removed = len(outputs[0].sizes) < len(value.sizes)
    links: list[Link] = []
    for axis in range(len(value.sizes)):
        new = axis - 1 if removed and axis > dim else axis
        outs = tuple([(place, new) for place in range(len(outputs))])
        if axis != dim:
            links.append(Link("fork" if len(outs) > 1 else "pass", ((0, axis),), outs))
        else:
            links.append(Link("glyph", ((0, axis),), () if removed else outs, "bar"))
    if not outputs[0].sizes:
        links = [Link("glyph", ((0, 0),), tuple([(place, SCALAR) for place in range(len(outputs))]), "bar")]
    return Drawn((value,), outputs, tuple(links))


@rule("flip roll cumsum cumprod cummax cummin logcumsumexp sort argsort tril triu renorm repeat_interleave tile")
def along(reading: Reading) -> Drawn | None:
    """A box on the axes along which the operation works; the others pass."""
    name = reading.function_name
    words = {"flip": "dims", "roll": "dims"}
    dims = (
        [-2, -1]
        if name in ("tril", "triu")
        else reading.get(2 if name in ("roll", "renorm") else 1, words.get(name, "dim"))
    )
    if dims is None or name in ("sort", "tile", "repeat_interleave"):
        return None
    return on_axes(reading, dims if isinstance(dims, list) else [dims], "box", (Span(name, "sans"),))


__all__ = ["expand", "index", "join", "permute", "split"]
