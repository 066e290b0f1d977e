"""Drawing rules of operations on some axes: the triangle of a softmax, the circle of a normalization, reductions."""

from circuits.drawing.marks import Span
from circuits.drawing.operations.patterns import ENDINGS
from circuits.drawing.operations.reading import SCALAR, Drawn, Reading, on_axes, passing, rule
from circuits.drawing.scene import Link


@rule("softmax log_softmax softmin")
def softmax(reading: Reading) -> Drawn | None:
    """A triangle on the axis, its apex at the left (Figures 19 to 21); `log` or `min` beside it if it is either."""
    name = reading.function_name
    text = () if name == "softmax" else (Span(name.removesuffix("softmax").strip("_") or "min", "sans"),)
    return on_axes(reading, [reading.get(1, "dim", -1)], "triangle", text)


@rule("layer_norm rms_norm normalize")
def layer_norm(reading: Reading) -> Drawn | None:
    """A circle on the last of the axes that are normalized; the others are beside it."""
    rank = len(reading.tensors[0].sizes)
    if reading.function_name == "normalize":
        dims = [reading.get(2, "dim", 1)]
    else:
        shape = reading.operation.sequence(1, "normalized_shape")
        dims = list(range(rank - len(shape), rank))
    return _circle(reading, dims[-1] % rank, [dim % rank for dim in dims[:-1]])


@rule("batch_norm group_norm instance_norm local_response_norm")
def batch_norm(reading: Reading) -> Drawn | None:
    """A circle on the channels; the batch, over which a BatchNorm averages in training, is beside it (Figure 26)."""
    if len(reading.tensors[0].sizes) < 2:
        return None
    averages = reading.function_name == "batch_norm" and reading.get(5, "training", False)
    return _circle(reading, 1, [0] if averages else [])


def _circle(reading: Reading, axis: int, beside: list[int]) -> Drawn | None:
    found = on_axes(reading, [axis], "circle", (), beside=tuple([(0, other) for other in beside]))
    return None if found is None or len(reading.data) > 1 else found


@rule("sum mean max min amax amin prod any all logsumexp std var norm argmax argmin nansum count_nonzero median")
def reduction(reading: Reading) -> Drawn | None:
    """A reduced axis ends in Σ, 𝔼 or the name of the operation; with `keepdim` an axis of size 1 begins there."""
    value, outputs = reading.tensors[0], reading.box.outputs
    rank = len(value.sizes)
    if len(outputs) != 1 or len(reading.tensors) != 1:
        return None
    name = reading.function_name
    given = reading.get(2 if name == "norm" else 1, "dim", reading.get(9, "axis"))
    dims = given if isinstance(given, list) else list(range(rank)) if given is None else [given]
    if any(isinstance(dim, bool) or not isinstance(dim, int) for dim in dims):
        return None
    reduced = sorted({dim % rank for dim in dims}) if rank else []
    text = (Span(ENDINGS.get(name, name), "upright"),)
    out = outputs[0]
    if len(out.sizes) == rank and rank:
        return on_axes(reading, reduced, "letter", text)
    if len(out.sizes) != rank - len(reduced):
        return None
    kept = [axis for axis in range(rank) if axis not in reduced]
    links = [*passing([((0, old), (0, new)) for new, old in enumerate(kept)])]
    links += [Link("end", ((0, axis),), text=text) for axis in reduced]
    if not out.sizes:
        links.append(Link("start", (), ((0, SCALAR),)) if rank else Link("pass", ((0, SCALAR),), ((0, SCALAR),)))
    return Drawn((value,), outputs, tuple(links))


__all__ = ["batch_norm", "layer_norm", "reduction", "softmax"]
