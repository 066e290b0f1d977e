"""The tensors and modules that exist before a run of a diagram, some of them replaced by the caller."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from circuits.diagram.structure import attribute
from circuits.errors import CircuitError


def check_names(diagram: Any, state_names: Mapping[int, str], names: Collection[str]) -> None:
    """Raise CircuitError if one of these is not the name of a parameter or buffer of the recorded modules."""
    if not names:
        return
    known = set(state_names.values())
    roots = [module for number, (module, name) in diagram.state.items() if state_names.get(number) == name]
    for root in {id(module): module for module in roots}.values():
        known |= {name for name, _ in (*root.named_parameters(), *root.named_buffers())}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CircuitError(f"{diagram.name} has no parameter or buffer {', '.join(unknown)}")


def tensors_before_the_run(
    diagram: Any, state_names: Mapping[int, str], parameters: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    """Return the tensors that exist before a run, by value number; `parameters` replace those of the same names."""
    tensors = {**diagram.constants}
    for number, place, key in diagram.held:
        tensors[number] = place.tensor(key)
    for number, (module, name) in diagram.state.items():
        full = state_names.get(number, name)
        tensors[number] = parameters[full] if full in parameters else attribute(module, name)
    return tensors


def with_parameters(
    diagram: Any, state_names: Mapping[int, str], parameters: Mapping[str, Tensor]
) -> Mapping[str, Callable[..., Any]]:
    """Return the modules and methods that run as a whole, by path, each run with the replaced tensors in its module."""
    if not parameters:
        return diagram.modules
    replaced = {
        id(attribute(*where)): parameters[state_names[number]]
        for number, where in diagram.state.items()
        if state_names.get(number) in parameters
    }

    def replaced_in(path: str, function: Any) -> Callable[..., Any]:
        module, prefix = getattr(function, "__self__", function), path.partition(":")[0]
        given: dict[str, Tensor] = {}
        for name, tensor in (*nn.Module.named_parameters(module), *nn.Module.named_buffers(module)):
            found = parameters.get(f"{prefix}.{name}" if prefix else name, replaced.get(id(tensor)))
            given |= {} if found is None else {name: found}

        def run(*args: Any, **kwargs: Any) -> Any:
            with _reparametrize_module(module, given, tie_weights=True):
                return function(*args, **kwargs)

        return run if given else function

    return {path: replaced_in(path, function) for path, function in diagram.modules.items()}


__all__ = ["check_names", "tensors_before_the_run", "with_parameters"]
