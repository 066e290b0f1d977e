"""Operations without a reverse rule: one box each, in which torch computes the vector-Jacobian product.

A diagram lists such boxes in its `opaque` property.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.autodiff.tensors import append_as_wire, is_floating
from circuits.diagram import describe, fill, tensors


class Pullback:
    """The vector-Jacobian product of a function by `torch.func.vjp`, which runs the function again.

    `asked` are the positions, among the floating tensors in the function's arguments, of those whose cotangents are
    computed; None means all of them. Torch refuses to differentiate some functions by certain arguments (a fractional
    pool by its samples), so those that are not needed are left out.
    """

    opaque = True

    def __init__(self, function: Callable[..., Any], name: str, asked: tuple[int, ...] | None = None) -> None:
        self.function = function
        self.__name__: str = f"∂{name}"
        self.asked = asked

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """Return the cotangents of the floating tensors at `asked`, in order; one box if a diagram is recorded.

        Args:
            args: The positional arguments of the function.
            kwargs: The keyword arguments of the function.
            cotangents: One for each floating output of the function; None stands for zeros.
        """
        recorder = switch.current() if switch.active else None
        if recorder is None:
            return self.run(args, kwargs, cotangents)
        return recorder.verb(self, "", (args, kwargs, cotangents), {}, lambda: self.run(args, kwargs, cotangents))

    def pullback(self) -> "Pullback":
        """Return the vector-Jacobian product of this one, for a gradient of a gradient."""
        return type(self)(self, self.__name__)

    def restricted(self, asked: tuple[int, ...]) -> "Pullback":
        """Return the vector-Jacobian product by only the floating tensors at these positions."""
        return type(self)(self.function, self.__name__.removeprefix("∂"), asked)

    def run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """Return the cotangents, as a call does, without recording a box."""
        given: list[Tensor] = []
        form = describe((args, kwargs), lambda tensor: append_as_wire(given, tensor))
        floating = [place for place, tensor in enumerate(given) if is_floating(tensor)]
        floating = floating if self.asked is None else [floating[place] for place in self.asked]

        def function(*moved: Tensor) -> tuple[Tensor, ...]:
            filled = list(given)
            for place, tensor in zip(floating, moved, strict=True):
                filled[place] = tensor
            again: Any = fill(form, lambda wire: filled[wire.number], lambda scalar: scalar.expression)
            return tuple([tensor for tensor in tensors(self.function(*again[0], **again[1])) if is_floating(tensor)])

        with switch.set_recorder(None):
            return self.back(function, [given[place] for place in floating], cotangents)

    def back(
        self, function: Callable[..., Any], inputs: list[Tensor], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """Return the cotangents of the inputs of a function from tensors to a tuple of floating tensors."""
        outputs, pull, *_ = torch.func.vjp(function, *inputs)
        return pull(_with_zeros(outputs, cotangents))


class AutogradPullback(Pullback):
    """The vector-Jacobian product by `torch.autograd.grad`: for an `autograd.Function` and a user's own operation."""

    def back(
        self, function: Callable[..., Any], inputs: list[Tensor], cotangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor, ...]:
        """Return the cotangents of the inputs, differentiable in turn if an input or cotangent requires a gradient."""
        again = torch.is_grad_enabled() and any(each.requires_grad for each in (*inputs, *tensors(cotangents)))
        with torch.enable_grad():
            inputs = [each if each.requires_grad else each.detach().requires_grad_() for each in inputs]
            outputs = function(*inputs)
            pairs = [
                (out, back)
                for out, back in zip(outputs, _with_zeros(outputs, cotangents), strict=True)
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


def under_autocast(autocast: tuple[str, torch.dtype] | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs under this autocast; the function itself if `autocast` is None."""
    if autocast is None:
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(autocast[0], dtype=autocast[1], cache_enabled=False):
            return function(*args, **kwargs)

    return run


def _with_zeros(outputs: tuple[Tensor, ...], cotangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Return the cotangents of the outputs, with zeros for None."""
    return tuple(
        [torch.zeros_like(out) if back is None else back for out, back in zip(outputs, cotangents, strict=True)]
    )
