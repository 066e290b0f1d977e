"""Sharding: one choice, axis name -> mesh axis, as placements of every parameter and tensor, for torch.distributed.

May use `cost` and below. Start with `plan` (`plan_sharding`): `mesh` reads the choice, `named` finds the axes in the
tensors of a diagram, `planner` plans each axis of the mesh (`one_axis` with the placement rules of `rules`, `meeting`
with whole tensors beside parts, `across` with kernels that read across an axis, `sums` over ranks, and `gradients`),
and `sharding` is the result, whose parts are in `moves`. `between` has the tensors between modules that are split along
an axis of their own, and `repairs` finds at which modules these change. Where no names are stated, `following` has
where an axis is after views; `made` has what operations make from no split tensor. `shard` applies it to a model by
`hooks`, and by `fully_shard` to each of its `blocks`; `local` has what each rank computes on its own parts, and
`checked_pass` checks backward passes.

`search` (`search_shardings`) estimates all plans that are possible. `alternatives` finds these; `training` has the
forward and the reverse pass, in which `splits` finds how each tensor is split, `memory` what a rank holds, in
`amounts`, and `traffic` what it sends, in a time that `links` bounds. `estimate` is the result for one plan, and
`estimate_report` prints it.
"""

from circuits.sharding.plan import plan_sharding
from circuits.sharding.search import Search, search_shardings
from circuits.sharding.shard import shard
from circuits.sharding.sharding import Sharding

__all__ = ["Search", "Sharding", "plan_sharding", "search_shardings", "shard"]
