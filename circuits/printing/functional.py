"""A call as a function of all its tensors: the weights of a module by their dotted names, then what goes in."""

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from circuits.diagram import Diagram, Struct, Wire, arguments, change, describe, tensors
from circuits.errors import CircuitError
from circuits.recording import signature_of, trace

Run = Callable[[Mapping[str, Tensor], tuple[Any, ...], dict[str, Any]], Any]
"""What runs with these weights, arguments, and arguments by name."""


@dataclass(frozen=True)
class Call:
    """`run` with `weights` and arguments, taken apart: `tensors` in order, and for each in `names` what leads to it.

    >>> call = Call.of(lambda weights, x: x @ weights["w"], ({"w": torch.ones(2, 3)}, torch.ones(2)), {})
    >>> call.names
    ('weights.w', 'x')
    >>> call(torch.ones(2, 3), torch.zeros(2))
    tensor([0., 0., 0.])
    """

    run: Run
    form: Any
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    weights: int

    @classmethod
    def of(cls, f: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """The call of a function, a module, a method of one, or a diagram; TypeError for arguments that do not fit."""
        weights, run, binder = _pure(f)
        if binder is not None:
            bound = binder.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        found: list[Tensor] = []

        def wire(tensor: Tensor) -> Wire:
            again = any(each is tensor for each in found)
            found.append(tensor.view_as(tensor) if again else tensor)
            return Wire(len(found) - 1)

        form = describe((weights, args, dict(kwargs)), wire)
        names = (*weights, *_paths(arguments(args, kwargs, binder)))
        return cls(run, form, names, tuple(found), len(weights))

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is given by place and by name; a tensor that is given twice is two."""
        _, args, kwargs = change(self.form, lambda wire: self.tensors[wire.number], lambda scalar: scalar.expression)
        return args, kwargs

    def __call__(self, *given: Tensor) -> Any:
        """What comes out for these tensors instead."""
        weights, args, kwargs = change(self.form, lambda wire: given[wire.number], lambda scalar: scalar.expression)
        return self.run(weights, args, kwargs)


def made_inputs(
    f: Any, args: tuple[Any, ...], sizes: Mapping[str, int] | None, axes: str | None, kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments of a call: those given or, where no tensor is, zeros of the sizes that a trace takes.

    CircuitError where an axis has no size.
    """
    if tensors((args, kwargs)):
        if sizes or axes:
            raise CircuitError("sizes and axes are for inputs that are made; these inputs have their own")
        return args
    diagram = f if isinstance(f, Diagram) else trace(f, *args, sizes=sizes, axes=axes, **kwargs)
    every = [name for value in diagram.inputs for size in value.sizes for name in getattr(size, "free_symbols", ())]
    if every:
        free = sorted({f"{name}" for name in every})
        raise CircuitError(f"{diagram.name}: {', '.join(free)} may be any size here; give one, sizes={{...}}")
    return tuple([torch.zeros([int(size) for size in value.sizes], dtype=value.dtype) for value in diagram.inputs])


def _pure(f: Any) -> tuple[dict[str, Tensor], Run, inspect.Signature | None]:
    """The tensors that are held, what runs with others in their place, and its parameters."""
    if isinstance(f, Diagram):
        read = {
            value.name: f.state[value.number] for box in f.walk() for value in box.inputs if value.number in f.state
        }
        held = {name: operator.attrgetter(path)(module) for name, (module, path) in read.items()}
        return held, lambda weights, args, kwargs: f.run(args, kwargs, weights), f.binder
    owner = getattr(f, "__self__", None)
    if not isinstance(f, nn.Module) and not isinstance(owner, nn.Module):
        return {}, lambda _, args, kwargs: f(*args, **kwargs), signature_of(f)
    module = f if isinstance(f, nn.Module) else _Method(owner, f.__name__)
    prefix = "" if isinstance(f, nn.Module) else "owner."

    def run(weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {f"{prefix}{name}": value for name, value in weights.items()}
        return torch.func.functional_call(module, given, args, kwargs)

    held = dict([*module.named_parameters(), *module.named_buffers()])
    return {name.removeprefix(prefix): value for name, value in held.items()}, run, signature_of(f)


class _Method(nn.Module):
    """A method of a module as a module, which can be run with other weights."""

    def __init__(self, owner: Any, method: str) -> None:
        super().__init__()
        self.owner = owner
        self.method = method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the method gives."""
        return getattr(self.owner, self.method)(*args, **kwargs)


def _paths(value: Any) -> Iterator[str]:
    """The words that lead to each tensor of a value: `weights.Wq`, `state.1`."""
    return _below(describe(value, lambda _: Wire(0)), "")


def _below(description: Any, path: str) -> Iterator[str]:
    if isinstance(description, Wire):
        yield path
    elif isinstance(description, Struct):
        for key, part in zip(description.keys or range(len(description.parts)), description.parts, strict=True):
            yield from _below(part, f"{path}.{key}" if path else f"{key}")


__all__ = ["Call", "made_inputs"]
