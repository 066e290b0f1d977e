"""What has no rule: one box that asks torch for the vector-Jacobian product. Diagrams list such boxes.

Also the one operation that the reversal adds to torch's: a tensor written over through a view of it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.diagram import Wire as Place
from circuits.diagram import describe, fill, tensors


class Pullback:
    """The vector-Jacobian product of one function by `torch.func.vjp`: runs it again, then back.

    `asked` are the places, among the floating tensors of its arguments, of those whose cotangents it gives; all, if
    None. Torch refuses some functions a derivative by what nobody asks for: the samples of a fractional pool, say.
    """

    opaque = True

    def __init__(self, function: Callable[..., Any], name: str, asked: tuple[int, ...] | None = None) -> None:
        self.function = function
        self.__name__ = f"∂{name}"
        self.asked = asked

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """The cotangents of the floating tensors among the arguments that are asked for, in order."""
        recorder = switch.current() if switch.active else None
        if recorder is None:
            return self.run(args, kwargs, cotangents)
        return recorder.verb(self, "", (args, kwargs, cotangents), {}, lambda: self.run(args, kwargs, cotangents))

    def again(self) -> "Pullback":
        """The vector-Jacobian product of this one."""
        return type(self)(self, self.__name__)

    def of(self, asked: tuple[int, ...]) -> "Pullback":
        """The same, for some of the floating tensors alone."""
        return type(self)(self.function, self.__name__.removeprefix("∂"), asked)

    def run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """The same, whoever listens."""
        given: list[Tensor] = []
        form = describe((args, kwargs), lambda tensor: _put(given, tensor))
        floating = [place for place, tensor in enumerate(given) if _floats(tensor)]
        floating = floating if self.asked is None else [floating[place] for place in self.asked]

        def function(*moved: Tensor) -> tuple[Tensor, ...]:
            filled = list(given)
            for place, tensor in zip(floating, moved, strict=True):
                filled[place] = tensor
            again: Any = fill(form, lambda wire: filled[wire.number], lambda scalar: scalar.expression)
            return tuple([tensor for tensor in tensors(self.function(*again[0], **again[1])) if _floats(tensor)])

        with switch.set_recorder(None):
            return self.back(function, [given[place] for place in floating], cotangents)

    def back(
        self, function: Callable[..., Any], inputs: list[Tensor], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """The cotangents of the inputs of a function of tensors alone."""
        outputs, pull, *_ = torch.func.vjp(function, *inputs)
        return pull(_filled(outputs, cotangents))


class AutogradPullback(Pullback):
    """The same by `torch.autograd.grad`, for functions and operations of a user's, whose gradient is their own."""

    def back(
        self, function: Callable[..., Any], inputs: list[Tensor], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """The cotangents of the inputs of a function of tensors alone."""
        again = torch.is_grad_enabled() and any(each.requires_grad for each in (*inputs, *tensors(cotangents)))
        with torch.enable_grad():
            inputs = [each if each.requires_grad else each.detach().requires_grad_() for each in inputs]
            outputs = function(*inputs)
            pairs = [
                (out, back)
                for out, back in zip(outputs, _filled(outputs, cotangents), strict=True)
                if out.requires_grad
            ]
            if not pairs:
                return tuple([torch.zeros_like(each) for each in inputs])
            found = torch.autograd.grad(
                [out for out, _ in pairs], inputs, [back for _, back in pairs], create_graph=again, allow_unused=True
            )
        return tuple(
            [torch.zeros_like(each) if back is None else back for each, back in zip(inputs, found, strict=True)]
        )


def under(autocast: tuple[str, torch.dtype] | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs under this autocast, whatever it is called under."""
    if autocast is None:
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(autocast[0], dtype=autocast[1], cache_enabled=False):
            return function(*args, **kwargs)

    return run


def _filled(outputs: tuple[Tensor, ...], cotangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    return tuple(
        [torch.zeros_like(out) if back is None else back for out, back in zip(outputs, cotangents, strict=True)]
    )


def _put(found: list[Tensor], tensor: Tensor) -> Place:
    found.append(tensor)
    return Place(len(found) - 1)


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
