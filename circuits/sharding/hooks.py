"""The hooks that run the communications of a plan: on the arguments, results and gradients of modules."""

import sys
import threading
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import ExplicitRedistributionContext
from torch.distributed.tensor.experimental import implicit_replication
from torch.overrides import TorchFunctionMode

from circuits.diagram import TRACED_INTO, map_tensors, tensors
from circuits.errors import CircuitError
from circuits.sharding.checked_pass import entering, leaving
from circuits.sharding.local import LOCAL, einsum
from circuits.sharding.moves import Move, placements
from circuits.sharding.sharding import Sharding
from circuits.sharding.steps import argument_wires

Holders = Sequence[tuple[nn.Module, str]]
"""Where parameters are: modules, and names in them."""


def install(model: nn.Module, mesh: DeviceMesh, plan: Sharding) -> None:
    """Register the hooks of a plan on the modules of a model, whose parameters are distributed over `mesh`."""
    parameters = dict(model.named_parameters())
    at: dict[tuple[str, str], list[Move]] = {}
    for move in plan.moves:
        if move.side == "parameter":
            _sum_gradient_of(parameters[move.at])
        elif move.side in ("slice", "inside"):
            continue
        elif move.pass_ == "forward" or (move.source, move.target) == ("partial", "whole"):  # others are by autograd
            at.setdefault((move.at, move.side), []).append(move)
    sliced = {id(parameters[move.at]) for move in plan.moves if move.side == "slice"}
    whole = _Whole(model, mesh, plan, _holders(model, sliced))
    model.register_forward_pre_hook(whole.enter, with_kwargs=True, prepend=True)
    for (path, side), moves in at.items():
        module = model.get_submodule(path)
        if side == "arguments":
            module.register_forward_pre_hook(_on_arguments(moves), with_kwargs=True)
        else:
            module.register_forward_hook(_on_results(moves), prepend=True)
    model.register_forward_hook(whole.leave, always_call=True)


def _holders(model: nn.Module, parameters: Set[int]) -> Holders:
    """Return the modules that have some parameters, given by id, and their names there.

    The parameters themselves are not kept: `fully_shard` puts others in their places.
    """
    found: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found += [(module, name)] if id(parameter) in parameters else []
    return found


def _sum_gradient_of(parameter: Tensor) -> None:
    """Add up the gradients of a parameter over the ranks that each have a summand."""
    if parameter.requires_grad and isinstance(parameter, DTensor):
        target = parameter.placements
        parameter.register_hook(lambda gradient: gradient.redistribute(placements=target))


class _SumOfGradients(torch.autograd.Function):
    """The identity, whose reverse adds up the gradient over the ranks that each have a summand of it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        assert isinstance(tensor, DTensor)  # noqa: S101
        ctx.placements = tensor.placements
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
        """Return the gradient as the tensor is placed."""
        return gradient.redistribute(placements=ctx.placements)


def _on_arguments(moves: Sequence[Move]) -> Callable[..., Any]:
    """Return a hook for some arguments; a tensor that is given twice is taken once."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        given = tensors((args, kwargs))
        changed = _moved(given, moves)
        return map_tensors((args, kwargs), lambda tensor: changed.get(id(tensor), tensor))

    return hook


def _on_results(moves: Sequence[Move]) -> Callable[..., Any]:
    """Return a hook for some results."""

    def hook(module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        changed = _moved(tensors(result), moves)
        return map_tensors(result, lambda tensor: changed.get(id(tensor), tensor))

    return hook


def _moved(given: Sequence[Tensor], moves: Sequence[Move]) -> dict[int, Tensor]:
    """Return the tensors that moves change, by the `id` of what was given: placed otherwise, or with a hook."""
    changed: dict[int, Tensor] = {}
    for move in moves:
        before = id(given[move.index])
        tensor = changed.get(before, given[move.index])
        changed[before] = _SumOfGradients.apply(tensor) if move.pass_ == "backward" else _placed(tensor, move)
    return changed


def _placed(tensor: Any, move: Move) -> Tensor:
    """Return a tensor as it is after a move over one mesh axis."""
    mesh = tensor.device_mesh
    place = mesh.mesh_dim_names.index(move.mesh_axis)
    after = Replicate() if move.dim is None else Shard(move.dim)
    target = [after if number == place else each for number, each in enumerate(tensor.placements)]
    return tensor.redistribute(placements=target)


class _Distributed(TorchFunctionMode):
    """Distributes the tensors that a model makes from numbers, as `arange` does: they are whole on every rank.

    The backward pass may then read them beside distributed tensors. What torch.distributed makes for itself stays.
    Slices of the parameters in `sliced`, modules and names, are tensors of which each rank takes a part: their
    gradients are made whole. If `shares`, each rank takes its part of whole operands of an einsum too.
    """

    def __init__(self, mesh: DeviceMesh, sliced: Holders, shares: bool) -> None:
        super().__init__()
        self.mesh, self.sliced, self.shares = mesh, sliced, shares

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and distribute its result if the model made it from no tensor."""
        if func in LOCAL and args and isinstance(args[0], DTensor):
            return LOCAL[func](*args, **(kwargs or {}))
        if func is torch.einsum and self.shares and len(args) > 1 and isinstance(args[1], DTensor):
            return einsum(*args)
        if func is F.multi_head_attention_forward:  # what it calls is for this mode too
            with self:
                return TRACED_INTO[func](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func is Tensor.__getitem__ and any(getattr(module, name) is args[0] for module, name in self.sliced):
            return _SumOfGradients.apply(result)
        if not isinstance(result, Tensor) or isinstance(result, DTensor) or tensors((args, kwargs)):
            return result
        if sys._getframe(1).f_globals.get("__name__", "").startswith(_TORCH_INSIDE):
            return result
        return DTensor.from_local(result, self.mesh, [Replicate()] * self.mesh.ndim, run_check=False)


_TORCH_INSIDE = ("torch.distributed", "torch._")


class _Whole:
    """The hooks of the whole model: its inputs become distributed tensors, and its outputs plain ones."""

    def __init__(self, model: nn.Module, mesh: DeviceMesh, plan: Sharding, sliced: Holders) -> None:
        self.mesh, self.sliced, self.shares = mesh, sliced, bool(plan.choice.whole)
        given = argument_wires(plan.diagram, plan.diagram.box)
        self.inputs = [placements(plan.dims.get(number, {}), mesh) for number in given]
        self.run = threading.local()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Distribute the inputs, and refuse from here on a communication that is not in the plan."""
        given = (args, kwargs) if self.is_inside else self._distributed((args, kwargs))
        distributed = _Distributed(self.mesh, self.sliced, self.shares)
        contexts: list[Any] = [implicit_replication(), ExplicitRedistributionContext(), distributed]
        self.run.contexts = [*getattr(self.run, "contexts", []), contexts]
        for each in contexts:
            each.__enter__()
        return given

    @property
    def is_inside(self) -> bool:
        """Whether the model runs already: it may call itself."""
        return bool(getattr(self.run, "contexts", []))

    def _distributed(self, given: Any) -> Any:
        """Return the arguments with each tensor distributed: it is whole on every rank, which takes its part of it."""
        whole = [Replicate()] * self.mesh.ndim
        found = {}
        for index, tensor in enumerate(tensors(given)):
            shared = tensor
            if not isinstance(tensor, DTensor):
                shared = DTensor.from_local(entering(tensor), self.mesh, whole, run_check=False)
                target = self.inputs[index] if index < len(self.inputs) else whole
                shared = shared.redistribute(placements=target)
            found[id(tensor)] = found.get(id(tensor), shared)
        return map_tensors(given, lambda tensor: found[id(tensor)])

    def leave(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """Leave the run, whether it failed or not, and return plain tensors."""
        contexts = self.run.contexts.pop()
        for each in reversed(contexts):
            each.__exit__(None, None, None)
        if self.is_inside:
            return result
        return map_tensors(result, _plain)


def _plain(tensor: Tensor) -> Tensor:
    """Return an output as a plain tensor.

    Raises:
        CircuitError: It is not whole, which the plan would have foreseen.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    if not all(each.is_replicate() for each in tensor.placements):
        raise CircuitError(f"an output is placed as {tensor.placements}, and the plan says that it is whole")
    return leaving(tensor.to_local())


__all__ = ["install"]
