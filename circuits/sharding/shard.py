"""`shard`: a plan applied to a model, by DTensor, hooks on modules, and `fully_shard`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.distributed._composable.replicate_with_fsdp import replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from circuits.errors import CircuitError, described, entry_point
from circuits.sharding.blocks import blocks
from circuits.sharding.hooks import install
from circuits.sharding.mesh import Split
from circuits.sharding.moves import placements
from circuits.sharding.plan import plan_sharding
from circuits.sharding.sharding import Sharding


@entry_point
def shard(
    model: nn.Module,
    mesh: DeviceMesh,
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
    """Split a model over a mesh by the names of its axes, in place, and return the plan: see `plan_sharding`.

    Every rank calls this with the same model, before it makes an optimizer; the parameters become those of rank 0.
    Afterwards the model is called as before, with plain tensors: over a mesh axis for data each rank gives its own part
    of a batch, over the others all ranks give the same. Signatures see the sizes of whole tensors, but of the parts of
    the data, and outputs are whole in the same way. A communication that is not in the plan raises an error, in both
    passes (torch's `ExplicitRedistributionContext`).

    Args:
        model: The model; it is changed.
        mesh: A DeviceMesh with named axes.
        split: The mesh axes of each axis, as for `plan_sharding`.
        *args: The positional arguments of `trace`.
        names, sizes, axes, replicate, between: As for `plan_sharding`.
        **kwargs: The keyword arguments of `trace`.

    Raises:
        CircuitError: `model` is no module or is sharded already, `mesh` is no DeviceMesh; and as `plan_sharding`
            raises. The model is then as before.
    """
    if not isinstance(model, nn.Module):
        raise CircuitError(f"shard takes a module, not {type(model).__name__}; plan_sharding takes any circuit")
    if not isinstance(mesh, DeviceMesh):
        raise CircuitError(
            f'shard needs a DeviceMesh, not {described(mesh)}: torch.distributed.init_device_mesh("cpu", (2,), '
            'mesh_dim_names=("tensor",)) makes one under torchrun; plan_sharding takes sizes by name, {"tensor": 2}'
        )
    if any(isinstance(each, DTensor) for each in model.parameters()):
        raise CircuitError(f"{type(model).__name__} is sharded already")
    plan = plan_sharding(
        model, mesh, split, *args, names=names, sizes=sizes, axes=axes, replicate=replicate, between=between, **kwargs
    )
    tensor_axes = [name for name in plan.choice.mesh if name not in plan.data]
    if tensor_axes:
        inner = mesh[tuple(tensor_axes)]
        _distribute(model, inner, plan)
        install(model, inner, plan)
    if plan.data:
        _over_data(model, mesh, plan)
    return plan


def _distribute(model: nn.Module, mesh: DeviceMesh, plan: Sharding) -> None:
    """Replace the parameters and buffers of a model by distributed ones, shared ones by one."""
    placed = {each.name: each for each in plan.parameters}
    by_tensor: dict[int, list[tuple[nn.Module, str, str]]] = {}
    for path, module in model.named_modules(remove_duplicate=True):
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            by_tensor.setdefault(id(getattr(module, name)), []).append((module, name, f"{path}.{name}".lstrip(".")))
    made = []
    for holders in by_tensor.values():
        module, name, _ = holders[0]
        tensor = getattr(module, name)
        known = next((placed[path] for *_, path in holders if path in placed), None)
        target = placements(known.dims if known else {}, mesh)
        is_inside = any(isinstance(each, _StridedShard) for each in target)  # rank 0 sends the whole, not the parts
        shared = distribute_tensor(tensor.detach(), mesh, [Replicate()] * mesh.ndim if is_inside else target)
        shared = shared.redistribute(placements=target)
        if isinstance(tensor, nn.Parameter):
            shared = nn.Parameter(shared, requires_grad=tensor.requires_grad)
        made += [(module, name, shared) for module, name, _ in holders]
    for module, name, tensor in made:
        setattr(module, name, tensor)


def _over_data(model: nn.Module, mesh: DeviceMesh, plan: Sharding) -> None:
    """Apply `fully_shard`, or torch's `replicate` if all is a copy, to each of repeated blocks, and to the rest."""
    copied, split = [[each for each in plan.data if (each in plan.replicate) is kind] for kind in (True, False)]
    meshes = [_flat(mesh, names) for names in (copied, split) if names]
    apply: Any = fully_shard if split else replicate
    ranks = meshes[0] if len(meshes) == 1 else DeviceMesh._concatenate(meshes)
    for _, block in blocks(model):
        apply(block, mesh=ranks)
    apply(model, mesh=ranks)


def _flat(mesh: DeviceMesh, names: Sequence[str]) -> DeviceMesh:
    """Return the mesh of some axes as one axis: of two, `fully_shard` would take the first for copies."""
    return mesh[names[0]] if len(names) == 1 else mesh[tuple(names)]._flatten("_".join(names))


__all__ = ["shard"]
