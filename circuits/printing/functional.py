"""A call as a pure function of all its tensors: parameters and buffers by their dotted names, then the inputs."""

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from circuits.diagram import Diagram, Struct, Wire, arguments, describe, fill, tensors
from circuits.errors import CircuitError
from circuits.recording import python_signature, trace

Run = Callable[[Mapping[str, Tensor], tuple[Any, ...], dict[str, Any]], Any]
"""A function of weights by name, positional arguments and keyword arguments."""


@dataclass(frozen=True)
class FunctionalCall:
    """A call as a function of tensors: its parameters and buffers, then the tensors in its arguments.

    Attributes:
        run: The function of weights by name, positional arguments and keyword arguments.
        form: The description of `(weights, args, kwargs)`, the arguments of `run`, with a wire for each tensor.
        names: The dotted name of each tensor: of a parameter or buffer, or of an argument and the keys inside it.
        tensors: The tensors in the order of `form`; a tensor that occurs again is replaced by a view of it.
        weights: The number of leading tensors that are parameters and buffers.

    >>> call = FunctionalCall.of(lambda weights, x: x @ weights["w"], ({"w": torch.ones(2, 3)}, torch.ones(2)), {})
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
        """Return the call of a function, a module, a method of a module, or a diagram.

        Raises:
            TypeError: If the arguments do not fit the parameters of `f`.
        """
        weights, run, binder = _functional(f)
        if binder is not None:
            bound = binder.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        found: list[Tensor] = []

        def wire(tensor: Tensor) -> Wire:
            is_repeated = any(each is tensor for each in found)
            found.append(tensor.view_as(tensor) if is_repeated else tensor)
            return Wire(len(found) - 1)

        form = describe((weights, args, dict(kwargs)), wire)
        names = (*weights, *_paths(arguments(args, kwargs, binder)))
        return cls(run, form, names, tuple(found), len(weights))

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments; a tensor that occurs again is replaced by a view of it."""
        _, args, kwargs = fill(self.form, lambda wire: self.tensors[wire.number], lambda scalar: scalar.expression)
        return args, kwargs

    def __call__(self, *given: Tensor) -> Any:
        """Return the result of the call with the tensors `given` in place of `tensors`, in the same order."""
        weights, args, kwargs = fill(self.form, lambda wire: given[wire.number], lambda scalar: scalar.expression)
        return self.run(weights, args, kwargs)


def example_inputs(
    f: Any, args: tuple[Any, ...], sizes: Mapping[str, int] | None, axes: str | None, kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return `args` or, if no argument holds a tensor, zeros of the sizes and dtypes of the traced inputs.

    Args:
        f: A circuit, module, function or diagram.
        args: The given positional arguments.
        sizes: The sizes of axes, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        kwargs: The given keyword arguments.

    Raises:
        CircuitError: If the size of an axis is symbolic, or if `sizes` or `axes` are given together with tensors or for
            a diagram.
    """
    if isinstance(f, Diagram) and (sizes or axes):
        raise CircuitError(
            f"{f.name} is a diagram: it was recorded with its sizes and axes, and takes no others; "
            "level 'aten' takes example inputs"
        )
    if tensors((args, kwargs)):
        if sizes or axes:
            raise CircuitError("sizes and axes are for inputs that listing makes; the given tensors have their own")
        return args
    diagram = f if isinstance(f, Diagram) else trace(f, *args, sizes=sizes, axes=axes, **kwargs)
    symbols = [each for value in diagram.inputs for size in value.sizes for each in getattr(size, "free_symbols", ())]
    if symbols:
        free = sorted({f"{symbol}" for symbol in symbols})
        raise CircuitError(
            f"{diagram.name}: level 'aten' needs a size for each axis; {', '.join(free)} have none: "
            f"pass example inputs{'' if isinstance(f, Diagram) else ' or sizes={...}'}"
        )
    return tuple([torch.zeros([int(size) for size in value.sizes], dtype=value.dtype) for value in diagram.inputs])


def _functional(f: Any) -> tuple[dict[str, Tensor], Run, inspect.Signature | None]:
    """Return the parameters and buffers of `f`, a function that runs `f` with given ones, and its Python signature."""
    if isinstance(f, Diagram):
        read = {
            value.name: f.state[value.number] for box in f.walk() for value in box.inputs if value.number in f.state
        }
        state = {name: operator.attrgetter(path)(module) for name, (module, path) in read.items()}
        return state, lambda weights, args, kwargs: f.run(args, kwargs, weights), f.binder
    owner = getattr(f, "__self__", None)
    if not isinstance(f, nn.Module) and not isinstance(owner, nn.Module):
        return {}, lambda _, args, kwargs: f(*args, **kwargs), python_signature(f)
    module = f if isinstance(f, nn.Module) else _Method(owner, f.__name__)
    prefix = "" if isinstance(f, nn.Module) else "owner."

    def run(weights: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = {f"{prefix}{name}": value for name, value in weights.items()}
        return torch.func.functional_call(module, state, args, kwargs)

    state = dict([*module.named_parameters(), *module.named_buffers()])
    return {name.removeprefix(prefix): value for name, value in state.items()}, run, python_signature(f)


class _Method(nn.Module):
    """A method of a module as the `forward` of a module, which `torch.func.functional_call` can run."""

    def __init__(self, owner: Any, method: str) -> None:
        super().__init__()
        self.owner = owner
        self.method = method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the method."""
        return getattr(self.owner, self.method)(*args, **kwargs)


def _paths(value: Any) -> Iterator[str]:
    """Yield the path of each tensor in a nested value, its keys joined by dots: `weights.Wq`, `state.1`."""
    return _wire_paths(describe(value, lambda _: Wire(0)), "")


def _wire_paths(description: Any, path: str) -> Iterator[str]:
    """Yield the dotted path to each wire of the description at `path`."""
    if isinstance(description, Wire):
        yield path
    elif isinstance(description, Struct):
        for key, part in zip(description.keys or range(len(description.parts)), description.parts, strict=True):
            yield from _wire_paths(part, f"{path}.{key}" if path else f"{key}")


__all__ = ["FunctionalCall", "example_inputs"]
