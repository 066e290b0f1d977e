"""Sharding: one choice, axis name -> mesh axis, as placements of every parameter and tensor, for torch.distributed.

May use `cost` and below. Start with `plan` (`plan_sharding`): `mesh` reads the choice, `named` finds the axes in the
tensors of a diagram, `planner` plans each axis of the mesh (`one_axis` with the placement rules of `rules`, and
`gradients`), and `sharding` is the result, whose parts are in `moves`. `shard` applies it to a model by `hooks`.
"""

from circuits.sharding.plan import plan_sharding
from circuits.sharding.shard import shard
from circuits.sharding.sharding import Sharding

__all__ = ["Sharding", "plan_sharding", "shard"]
