"""`Lowering`: the dispatch mode that records a torch call as ATen operations, decomposed until these have rules.

A call runs once on fake tensors under a dispatch mode below autograd, where composite operations (`layer_norm`,
`einsum`, `softmax`) arrive before torch decomposes them. An operation that has a rule, or through which no gradient
flows, is recorded as it is; any other is replaced by its definition, or by torch's decomposition; an operation that
has no rule even then is opaque.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from circuits.autodiff.aten import (
    WRONG_DECOMPOSITIONS,
    autocast_inside,
    functional_form,
    name_of,
    named_arguments,
    outputs_under,
    recasts,
    returns_tensors,
    whole_arguments,
    written_arguments,
)
from circuits.autodiff.opaque import AutogradPullback, Pullback
from circuits.autodiff.rules.pointwise import no_gradient
from circuits.autodiff.rules.registry import DEFINITIONS, RULES, Rule
from circuits.autodiff.tensors import is_floating, storage_of
from circuits.autodiff.workspace import Workspace
from circuits.diagram import Call, Struct, describe, describe_all, map_tensors, tensors, wires
from circuits.errors import CircuitError
from circuits.recording import Call as RecordedCall

MOVES_NUMBERS = frozenset({"copy", "select_scatter", "slice_scatter", "diagonal_scatter"})
"""Operations whose rules hold for complex numbers too; torch has no derivative of some of them."""


class WriteThroughView(Exception):
    """A call writes in place to a tensor whose storage another tensor of the call shares."""


@dataclass(frozen=True)
class Step:
    """One operation that gradients flow through, with wires for tensors; `rule` is a reverse rule or a `Pullback`."""

    name: str
    rule: Rule | Pullback
    arguments: Mapping[str, Any]
    result: Any


class Lowering(TorchDispatchMode):
    """Records the ATen operations of one call: all of them as events, those that gradients flow through as `steps`.

    `active` are the numbers of the values that gradients flow through; results of steps are added to them. `recorded`
    counts the operations. `changed` is set where an operation was replaced by others. `replacements` maps the id of a
    tensor that the call wrote in place to the tensor that holds its new contents.
    """

    def __init__(self, workspace: Workspace, active: set[int], call: Call) -> None:
        super().__init__()
        self.workspace = workspace
        self.active = active
        self.call = call
        self.steps: list[Step] = []
        self.recorded = 0
        self.changed = False
        self.replacements: dict[int, Tensor] = {}
        self.inputs: dict[int, Tensor] = {
            number: workspace.fakes[number] for part in (call.args, call.kwargs) for number in wires(part)
        }
        self._by_storage: dict[int, list[Tensor]] = {}
        self._note_storages(list(self.inputs.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if func.namespace == "prim" or not returns_tensors(func):
            return _without_numbers_of_data(func(*args, **kwargs), name)
        if name.startswith("lift_fresh"):
            return self._constant(args[0], func(*args, **kwargs))
        if func._schema.is_mutable and name.endswith("_") and self._reads_active(args, kwargs):
            changes_view = torch.Tag.inplace_view in func.tags
            return (self._change_view if changes_view else self._write)(func, name, args, kwargs)
        if not self._is_differentiated(args, kwargs):
            if func._schema.is_mutable:
                _refuse_hidden_write(self, name, written_arguments(func, args, kwargs))
            return self._record(func, args, kwargs)[0]
        if name in RULES and not recasts(func, args, kwargs, self.call.autocast):
            return self._step(func, name, RULES[name], args, kwargs)
        return self._decompose(func, name, args, kwargs)

    def _constant(self, tensor: Tensor, fake: Tensor) -> Tensor:
        """Record a tensor that is a literal in the code."""
        record = self.workspace.listener.record
        number = record.add(fake, "constant", "")
        record.constants[number] = tensor
        self.workspace.fakes[number] = fake
        self.workspace.bind(fake, number)
        return fake

    def _is_differentiated(self, args: Any, kwargs: Any) -> bool:
        """Return whether autograd would record an operation on these arguments."""
        return torch.is_grad_enabled() and self._reads_active(args, kwargs)

    def _reads_active(self, args: Any, kwargs: Any) -> bool:
        """Return whether gradients flow through any of the arguments."""
        given = tensors((args, kwargs))
        return any(is_floating(tensor) and self.workspace.number_of(tensor) in self.active for tensor in given)

    # Recording

    def _record(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, RecordedCall]:
        """Run one operation and record it; return its output and the event."""
        values = self.workspace.listener.values
        described = {name: describe(value, values.wire) for name, value in kwargs.items()}
        event = RecordedCall(func, describe_all(args, values.wire), described, "", "")
        output = func(*args, **kwargs)
        if not func._schema.is_mutable:
            output = _without_inputs(output, tensors((args, kwargs)))
        event.result = describe(output, values.define)
        event.autocast = None
        self.workspace.listener.record.events.append(event)
        made = tensors(output)
        self.workspace.fakes |= {values.wire(tensor).number: tensor for tensor in made}
        self._note_storages(made)
        self.recorded += 1
        return output, event

    def _note_storages(self, made: list[Tensor]) -> None:
        """Register tensors of the call under their storages, each once: an in-place operation returns its target."""
        for tensor in made:
            if tensor.layout is torch.strided:
                known = self._by_storage.setdefault(storage_of(tensor), [])
                known += [tensor] if not any(each is tensor for each in known) else []

    def _step(self, func: Any, name: str, rule: Rule, args: Any, kwargs: Any) -> Any:
        """Record an operation that has a rule.

        One that reads or makes complex numbers, tensors or not, is opaque: rules are for real ones, but for those that
        only move numbers. If the rule is that no gradient flows, as for `detach`, the output is not active.
        """
        if name not in MOVES_NUMBERS and _has_complex((args, kwargs)):
            return self._opaque(func, name, args, kwargs)
        output, event = self._record(func, args, kwargs)
        if rule.function is no_gradient:
            return output
        self._activate(output)
        self.steps.append(Step(name, rule, named_arguments(func, event.args, event.kwargs), event.result))
        return output

    def _opaque(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Record an operation that has no rule; torch computes its vector-Jacobian product in the reverse pass."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CircuitError(
                f"{name} draws random numbers and has no reverse rule, so its gradient cannot be computed"
            )
        output, event = self._record(func, args, kwargs)
        self._activate(output)
        arguments = whole_arguments(
            Struct(tuple, (), event.args), Struct(dict, tuple(event.kwargs), tuple(event.kwargs.values()))
        )
        pullback = Pullback if func.namespace in ("aten", "prims") else AutogradPullback
        self.steps.append(Step(name, pullback(func, name), arguments, event.result))
        return output

    def _activate(self, output: Any) -> None:
        """Mark the floating tensors of an output as active."""
        self.active |= {self.workspace.number_of(tensor) for tensor in tensors(output) if is_floating(tensor)}

    # Decomposing

    def _decompose(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operation without a rule by its definition, by torch's decomposition, or as an opaque operation."""
        if name in DEFINITIONS:
            self.changed = True
            with self, autocast_inside(func, self.call.autocast):
                return DEFINITIONS[name](*args, **kwargs)
        if not any(is_floating(tensor) for tensor in tensors(outputs_under(func, args, kwargs, self.call.autocast))):
            return self._record(func, args, kwargs)[0]
        with self, autocast_inside(func, self.call.autocast):
            output = func.decompose(*args, **kwargs)
        if output is not NotImplemented:
            return output
        known = func in decomposition_table and name not in WRONG_DECOMPOSITIONS
        found = self._try_decomposition(decomposition_table[func], args, kwargs) if known else None
        return self._opaque(func, name, args, kwargs) if found is None else found

    def _try_decomposition(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return the output of a decomposition whose operations all have rules; else undo it and return None."""
        events, before = self.workspace.listener.record.events, (self.recorded, set(self.active))
        event_count, step_count = len(events), len(self.steps)
        try:
            with self:
                found = function(*args, **kwargs)
        except (CircuitError, WriteThroughView, NotImplementedError):
            found = None
        if found is None or any(isinstance(step.rule, Pullback) for step in self.steps[step_count:]):
            del events[event_count:], self.steps[step_count:]
            self.recorded, self.active = before
            return None
        return found

    # In-place operations

    def _write(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run the functional form of an in-place operation; its output replaces the written tensor from here on.

        Autograd does not record a write under `no_grad`: it differentiates the tensor as if the write only added a
        constant.
        """
        target = args[0]
        packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
        functional = getattr(packet, func._overloadname, None)
        if len(self._by_storage.get(storage_of(target), ())) > 1:
            raise WriteThroughView
        if functional is None:
            raise CircuitError(
                f"{name} writes in place to a value that gradients flow through, and has no functional form"
            )
        made = self.__torch_dispatch__(functional, (), args, kwargs)
        if not torch.is_grad_enabled() and self.workspace.number_of(target) in self.active:
            with torch.enable_grad(), self:
                made = made.detach() + (target - target.detach())
        before = self.workspace.number_of(target)
        self.workspace.bind(target, self.workspace.number_of(made))
        if before not in self.inputs:
            self.workspace.assign_fake(before, target)
        self.replacements[id(target)] = made
        self.changed = True
        return target

    def _change_view(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run the view operation that corresponds to an in-place one (`transpose_`), which writes no elements."""
        target, before = args[0], self.workspace.number_of(args[0])
        functional = functional_form(func)
        if functional is None or before in self.inputs:
            raise CircuitError(
                f"{name} changes in place a tensor that gradients flow through; compute a new value instead"
            )
        self.workspace.fakes[before] = torch.ops.aten.alias.default(target)
        made = self.__torch_dispatch__(functional, (), args, kwargs)
        func(*args, **kwargs)
        self.workspace.bind(self.workspace.fakes[before], before)
        self.workspace.bind(target, self.workspace.number_of(made))
        self.replacements[id(target)] = made
        self.changed: bool = True
        return target


def _without_numbers_of_data(result: Any, name: str) -> Any:
    """Return the result of an operation that returns no tensors; raise CircuitError for a number that is not known.

    It is read from data, and only the calls of a diagram are read again at each run, not operations inside them.
    """
    if name == "_local_scalar_dense" and isinstance(result, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        raise CircuitError(
            "the code reads a number of data (item, tolist) where it calls a function of torch.func (vmap, grad), "
            "so a backward circuit cannot read it: call that function in a module or circuit of its own"
        )
    return result


def _refuse_hidden_write(lowering: Lowering, name: str, target: list[Tensor]) -> None:
    """Raise CircuitError if an operation writes to the storage of a value that gradients flow through."""
    shared = [each for tensor in target for each in lowering._by_storage.get(storage_of(tensor), ())]
    if any(lowering.workspace.number_of(each) in lowering.active for each in shared):
        raise CircuitError(
            f"{name} writes in place, unseen by autograd, to the storage of a value that gradients flow through; "
            "compute a new value instead, or write to a clone"
        )


def _has_complex(given: Any) -> bool:
    """Return whether there is a complex tensor or number, or a complex dtype, among arguments."""
    if isinstance(given, (tuple, list, dict)):
        return any(_has_complex(each) for each in (given.values() if isinstance(given, dict) else given))
    if isinstance(given, torch.dtype):
        return given.is_complex
    return given.is_complex() if isinstance(given, Tensor) else isinstance(given, complex)


def _without_inputs(output: Any, inputs: list[Tensor]) -> Any:
    """Return an output with an alias for each tensor in it that is one of the inputs itself."""
    ids = {id(tensor) for tensor in inputs}
    return map_tensors(output, lambda tensor: torch.ops.aten.alias.default(tensor) if id(tensor) in ids else tensor)
