"""The outputs of a function and their gradients, as autograd computes them."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuits.checking import definitions
from circuits.diagram import Value
from circuits.laws.copies import seeded
from circuits.laws.subject import Subject


def values_and_gradients(
    subject: Subject, f: Callable[..., Any], tensors: Mapping[str, Tensor]
) -> tuple[list[Tensor], dict[str, Any]]:
    """Return the outputs, and the gradients of a randomly weighted sum of them, by name of input or parameter.

    The gradient is None where no gradient flows; there are no gradients if no output requires one.
    """
    leaves = {
        name: each.detach().requires_grad_() if can_have_gradient(each) else each for name, each in tensors.items()
    }
    found = subject.run(f, leaves)
    wanted = {name: each for name, each in leaves.items() if can_have_gradient(each)}
    wanted |= {name: each for name, each in subject.parameters().items() if each.requires_grad}
    outputs = [each for each in found if each.requires_grad]
    if not outputs or not wanted:
        return [each.detach() for each in found], {}
    with seeded(subject.seed + 1):
        weights = [torch.randn(each.shape, dtype=torch.float64).to(each.dtype) for each in outputs]
    gradients = torch.autograd.grad(outputs, list(wanted.values()), weights, allow_unused=True)
    return [each.detach() for each in found], dict(zip(wanted, gradients, strict=True))


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Run what has second derivatives: definitions instead of kernels, and attention as torch composes it.

    torch has no second derivative of the fused implementations of F.scaled_dot_product_attention.
    """
    with definitions(), sdpa_kernel(SDPBackend.MATH):
        yield


def is_undefined(error: RuntimeError) -> bool:
    """Return whether autograd says that it has no derivative of an operator, or no second one of a function."""
    text = "derivative for .* is not implemented|once_differentiable|double backward|differentiate twice"
    return re.search(text, f"{error}") is not None


def can_have_gradient(tensor: Tensor | Value) -> bool:
    """Return whether the dtype of a tensor, or of a value of a diagram, is floating or complex."""
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex
