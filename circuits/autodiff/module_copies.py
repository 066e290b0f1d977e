"""Copies of modules with fake parameters and buffers, for the calls of whole modules in a diagram."""

import copy
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils import _pytree

from circuits.diagram import Diagram, attribute
from circuits.errors import CircuitError
from circuits.recording import Listener


class ModuleCopies:
    """A fake copy of each module, made at its first use; tensors that modules share, their copies share too.

    Their parameters and buffers are recorded under the numbers that the diagram gives the original ones.
    """

    def __init__(self, diagram: Diagram, listener: Listener, mode: FakeTensorMode) -> None:
        self.diagram = diagram
        self.listener = listener
        self.mode = mode
        self._copies: dict[int, nn.Module] = {}
        self._memo: dict[int, Any] = {}

    def of(self, module: Any) -> Any:
        """Return the copy of a module; for a method of a module, that method of the copy."""
        owner = module if isinstance(module, nn.Module) else module.__self__
        if id(owner) not in self._copies:
            self._copies[id(owner)] = self._copy(owner)
        copied = self._copies[id(owner)]
        return copied if isinstance(module, nn.Module) else getattr(copied, module.__name__)

    def at(self, module: nn.Module, path: str) -> nn.Module:
        """Return the copy of a module, after registering it at this path, and its submodules below."""
        copied, paths = self.of(module), self.listener.record.paths
        for name, inner in copied.named_modules() if id(copied) not in paths else ():
            paths[id(inner)] = [".".join([word for word in (path, name) if word])]
        return copied

    def _copy(self, owner: nn.Module) -> nn.Module:
        """Return the copy of a module.

        Raises:
            CircuitError: A part of the module is a TorchScript module, whose operations and parameters are unseen.
        """
        script = next((each for each in owner.modules() if isinstance(each, torch.jit.ScriptModule)), None)
        if script is not None:
            raise CircuitError(
                f"the operations inside a TorchScript module ({script.original_name}) cannot be recorded, so they "
                "cannot be differentiated as a diagram: record the module that was scripted, or use autograd"
            )
        for (
            part
        ) in owner.modules():  # Generators cannot be copied without data; a run on fake tensors draws no numbers.
            held = _pytree.tree_leaves(vars(part))
            self._memo |= {id(each): each for each in held if isinstance(each, torch.Generator)}
        with self.listener.paused(), FakeCopyMode(self.mode):
            copied = copy.deepcopy(owner, self._memo)
        numbers = {id(attribute(*where)): number for number, where in self.diagram.state.items()}
        pairs = [
            (owner.named_parameters(), copied.named_parameters()),
            (owner.named_buffers(), copied.named_buffers()),
        ]
        for (_, old), (_, new) in [pair for olds, news in pairs for pair in zip(olds, news, strict=True)]:
            if id(old) in numbers:
                self.listener.values.bind(new, numbers[id(old)])
        for old, new in zip(owner.modules(), copied.modules(), strict=True):
            self.listener.record.originals[id(new)] = old
        return copied
