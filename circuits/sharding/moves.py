"""The parts of a plan as frozen data: how tensors are split, and what ranks send each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circuits.diagram import Size, Value
from circuits.sharding.following import blocks_of

Side = Literal["arguments", "results", "parameter", "slice", "inside"]

COLLECTIVES = {
    ("partial", "whole"): "all-reduce",
    ("split", "whole"): "all-gather",
    ("partial", "split"): "reduce-scatter",
    ("split", "split"): "ring",
    ("split", "halves"): "all-to-all",
    ("halves", "split"): "all-to-all",
    ("whole", "split"): "none",
}


@dataclass(frozen=True)
class Placed:
    """A parameter, buffer or value, and the dimension along which each mesh axis splits it.

    Attributes:
        value: The tensor, with the names of its axes.
        name: The dotted name of a parameter or buffer, else what computes it.
        dims: The dimension by mesh axis; mesh axes over which it is whole are left out.
        axes: The name of the axis there, by mesh axis.
        fully: The mesh axes over which `fully_shard` splits a parameter, which it gathers before use.
        bytes: The bytes of the part of one rank.
    """

    value: Value
    name: str
    dims: Mapping[str, int]
    axes: Mapping[str, str]
    fully: tuple[str, ...] = ()
    bytes: Size = 0

    @property
    def text(self) -> str:
        """The placement in words: `h over tensor (axis 0)`, `whole`."""
        words = [f"{self.axes[each]} over {each} (axis {dim})" for each, dim in self.dims.items()]
        words += [f"fully sharded over {' '.join(self.fully)}"] if self.fully else []
        return ", ".join(words) or "whole"


@dataclass(frozen=True)
class Move:
    """A communication: what the ranks of one mesh axis send each other at one place.

    Attributes:
        at: The dotted path of the module at whose arguments or results it happens; empty for the outermost box.
        side: Whether it happens to the arguments or the results of the module, to a parameter or a slice of one, or
            inside a kernel.
        index: The number of the tensor among these; 0 for a parameter.
        mesh_axis: The mesh axis.
        source: How the tensor is before: `partial` (each rank has a summand), `split`, `whole`, `halves` (each rank
            has a part from both ends of the axis).
        target: How it is after.
        pass_: "forward", or "backward" for a gradient.
        axis: The axis of which each rank has a part.
        why: The reason, in words.
        bytes: The bytes of the tensor of one rank that is sent.
        value: The tensor.
        sent: Each tensor of which a rank sends its part, with how often; empty if it is `value`, once.
        dim: The dimension along which it is split afterwards, if it is.
    """

    at: str
    side: Side
    index: int
    mesh_axis: str
    source: str
    target: str
    pass_: Literal["forward", "backward"]
    axis: str
    why: str
    bytes: Size
    value: Value
    sent: tuple[tuple[Value, int], ...] = ()
    dim: int | None = None

    @property
    def collective(self) -> str:
        """What the ranks run: all-reduce, all-gather, reduce-scatter, all-to-all, or ring (to the next rank)."""
        return COLLECTIVES[self.source, self.target]

    @property
    def is_sent(self) -> bool:
        """Whether the ranks send each other anything: to take a part of a whole tensor they need not."""
        return self.source != "whole"


def sent_by(move: Move, axes: frozenset[str]) -> frozenset[str]:
    """Return the mesh axes that split a tensor while a communication sends it, from those that split it in the plan."""
    own = frozenset([move.mesh_axis])
    return axes | own if move.source == "split" else axes - own


def placements(dims: Mapping[str, int], mesh: Any) -> list[Any]:
    """Return torch's placements of a tensor, one for each axis of a mesh.

    Args:
        dims: The dimension along which each mesh axis splits the tensor.
        mesh: A DeviceMesh, of which `dims` may lack axes.
    """
    return [_placement(dims.get(name)) for name in mesh.mesh_dim_names]


def _placement(dim: int | None) -> Any:
    """Return torch's placement of a tensor that is split along a dimension, or whole."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    if dim is None:
        return Replicate()
    return Shard(dim) if blocks_of(dim) == 1 else _StridedShard(int(dim), split_factor=blocks_of(dim))


__all__ = ["Move", "Placed", "Side", "placements", "sent_by"]
