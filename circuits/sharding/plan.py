"""`plan_sharding`: from one choice, axis name -> mesh axis, what every rank holds and what ranks send each other."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from circuits.diagram import Size, Value
from circuits.errors import CircuitError, entry_point
from circuits.recording import diagram_of
from circuits.sharding.mesh import Split, choice
from circuits.sharding.moves import Placed
from circuits.sharding.named import Named
from circuits.sharding.planner import Planner
from circuits.sharding.sharding import Sharding


@entry_point
def plan_sharding(
    target: Any,
    mesh: Any,
    split: Mapping[str, Split] | None = None,
    /,
    *args: Any,
    names: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    replicate: str | Sequence[str] = (),
    between: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Sharding:
    """Return how a model is split over a mesh by the names of its axes, without changing it.

    The diagram of the model says where each axis is in every parameter and tensor. One name is one decision: an axis is
    split everywhere, or refused. Parameters that have the axis are split along it; a linear map that contracts it adds
    up its result over the ranks at the end of its module; and where a tensor that is whole is used for every part, its
    gradient is added up over the ranks. A mesh axis that splits no parameter is for data: each rank computes with its
    own part of the inputs, and `fully_shard` of torch (FSDP2) splits and gathers the parameters. If a kernel reads
    across the axis, as attention does across a sequence, it is no axis for data: inputs are given whole, and the kernel
    sends what it needs (`across` of `f.kernel`).

    Args:
        target: A diagram, or what `trace` takes.
        mesh: A DeviceMesh with named axes, or the size of each mesh axis by name: `{"data": 2, "tensor": 4}`.
        split: The mesh axis, or the mesh axes, of each axis that is split; None for an axis that is to stay whole: of
            groups of keys and values that are whole, each rank takes those that its heads need. An axis that has the
            name of a mesh axis is split over it.
        *args: The positional arguments of `trace`.
        names: Names for the axes of parameters that have none, by the end of the parameter's dotted name, such as
            `{"L1.weight": "f m"}`.
        sizes: Sizes of axes that are not to stay free, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        replicate: The mesh axes for data over whose ranks every parameter is a copy, as in DistributedDataParallel;
            over the others `fully_shard` splits it.
        between: An axis, and the mesh axis that splits it in the tensors between the modules which this mesh axis
            splits otherwise: with `{"h": "tensor"}` and `between={"x": "tensor"}` a sequence is split between
            attention and attention (sequence parallelism). Modules that need the whole gather it, and their results
            are added up in parts: the same is sent as without, and a rank holds less.
        **kwargs: The keyword arguments of `trace`.

    Raises:
        CircuitError: Nothing is split; no tensor has an axis of a name; a size is not divisible; two axes of one tensor
            are split over one mesh axis; `replicate` names another mesh axis than for data; or an operation cannot run
            on tensors that are split so, with the reason.
        Exception: As `trace` raises.

    >>> from models import MultiHeadAttention
    >>> print(plan_sharding(MultiHeadAttention(m=128, k=16, h=4), {"tensor": 2}, {"h": "tensor"}).parameter_table())
    parameter  axes     placement               bytes a rank
    Lq.weight  (h k) m  h over tensor (axis 0)      16.0 KiB
    Lk.weight  (h k) m  h over tensor (axis 0)      16.0 KiB
    Lv.weight  (h k) m  h over tensor (axis 0)      16.0 KiB
    Lo.weight  m (h k)  h over tensor (axis 1)      16.0 KiB
    """
    diagram = diagram_of("plan_sharding", target, args, kwargs, sizes, axes)
    named = Named(diagram, names or {})
    named.choose(choice(mesh, split or {}, between or {}, named.sizes))
    planner = Planner(named)
    planner.plan()
    copied = (replicate,) if isinstance(replicate, str) else tuple(replicate)
    for each in copied:
        if each not in planner.data:
            known = " ".join(planner.data) or "none"
            raise CircuitError(f"replicate: {each} is no mesh axis for data, one that splits no parameter: {known}")
    dims = {number: dict(dims) for number, dims in planner.dims.items()}
    return Sharding(
        named.choice, diagram, _placed(planner, copied), tuple(planner.moves), tuple(planner.data), dims,
        tuple(planner.notes), copied,
    )  # fmt: skip


def _placed(planner: Planner, copied: Sequence[str]) -> tuple[Placed, ...]:
    """Return how each parameter and buffer is split, in the order in which the run reads them."""
    found = []
    for number, name in planner.named.parameters.items():
        value = planner.named.values[number]
        fully = tuple([each for each in planner.data if each not in copied]) if value.role == "parameter" else ()
        dims, axes = planner.dims.get(number, {}), planner.axes.get(number, {})
        found.append(Placed(value, name, dims, axes, fully, _bytes(planner, value, fully)))
    return tuple(found)


def _bytes(planner: Planner, value: Value, fully: tuple[str, ...]) -> Size:
    """Return the bytes of the largest part that a rank holds; `fully_shard` splits the first axis, rounding up."""
    ranks = prod([planner.named.choice.mesh[each] for each in fully])
    first: Any = value.sizes[0] if value.sizes else 1
    part = planner.bytes(value, planner.split_by(value))
    return part if ranks == 1 or not value.sizes else part * -(-first // ranks) / first


__all__ = ["plan_sharding"]
