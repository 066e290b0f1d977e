"""The law of derivatives: autograd agrees with finite differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from circuits.laws.comparison import fail
from circuits.laws.copies import seeded
from circuits.laws.counterexample import smallest_counterexample
from circuits.laws.gradients import can_have_gradient, is_undefined, twice_differentiable
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import DoesNotApply, Subject


@smallest_counterexample
def gradcheck(
    f: Any,
    /,
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """First derivatives of the circuit, and second derivatives of its definition, agree with finite differences.

    `torch.autograd.gradcheck` and `gradgradcheck` are called in double precision and in their fast mode (one random
    direction), for every floating input and parameter. First derivatives are those of the kernels, where there are any;
    second derivatives are those of the definition, because few kernels have second derivatives. For the same reason
    second derivatives of F.scaled_dot_product_attention are those of its composite implementation.

    Args:
        f: A circuit.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: A derivative disagrees with finite differences.
        DoesNotApply: No output has a derivative, the circuit does not compute in double precision, or its first
            derivatives are right and torch has no second derivative of an operator in it.

    >>> from circuits import circuit
    >>> gradcheck(circuit("a -> a")(lambda x: x.sin()))
    """
    subject = Subject("gradcheck", f, sizes, inputs, seed, arguments)
    checked: list[tuple[_Flat, list[Tensor], list[str]]] = []
    for optional in subject.none_and_all():
        tensors = subject.tensors(optional)
        floating = [name for name, each in tensors.items() if each.is_floating_point()]
        run = _Flat(subject, tensors, floating)
        given = [tensors[name] for name in floating] + [run.start]
        given = [each.clone().requires_grad_() for each in given if each.numel()]
        if subject.dtype != torch.float64 or not any(each.requires_grad for each in run(*given)):
            raise DoesNotApply(
                f"laws.gradcheck: no output of {subject.circuit.title} has a derivative in double precision"
            )
        checked.append((run, given, [f"with {name}" for name in optional]))
        _check(subject, torch.autograd.gradcheck, run, given, "first derivatives", *checked[-1][-1])
    for run, given, notes in checked:
        _check_second(subject, run, given, *notes)


def _check_second(subject: Subject, run: Callable[..., Any], given: list[Tensor], *notes: str) -> None:
    """Check second derivatives; raise DoesNotApply if torch has none of an operator."""
    try:
        with twice_differentiable():
            _differentiate_twice(run, given)
            _check(subject, torch.autograd.gradgradcheck, run, given, "second derivatives", *notes)
    except RuntimeError as error:
        if not is_undefined(error):
            raise
        raise DoesNotApply(
            f"laws.gradcheck: first derivatives of {subject.circuit.title} agree with finite differences; second"
            f" derivatives cannot be checked: {f'{error}'.strip().splitlines()[0]}"
        ) from error


def _differentiate_twice(run: Callable[..., Any], given: Sequence[Tensor]) -> None:
    """Raise torch's RuntimeError if a function has no second derivative; gradgradcheck may call it a wrong one."""
    leaves = [each.detach().clone().requires_grad_() for each in given]
    outputs = [each for each in run(*leaves) if each.requires_grad]
    cotangents = [torch.ones_like(each, requires_grad=True) for each in outputs]
    found = torch.autograd.grad(outputs, leaves, cotangents, create_graph=True, allow_unused=True)
    for each in found:
        if each is not None and each.requires_grad:
            each.sum().backward(retain_graph=True)


class _Flat:
    """The circuit as a function of its floating inputs and of one vector that contains all its floating parameters."""

    def __init__(self, subject: Subject, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
        self.subject, self.tensors = subject, tensors
        self.names = [name for name in names if tensors[name].numel()]
        self.parameters = {name: each for name, each in subject.parameters().items() if each.is_floating_point()}
        self.start = torch.cat(
            [torch.empty(0, dtype=subject.dtype), *[each.detach().flatten() for each in self.parameters.values()]]
        )

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that have gradients."""
        f = self.subject.f
        if self.parameters:
            pieces = given[-1].split([each.numel() for each in self.parameters.values()])
            own = zip(self.parameters.items(), pieces, strict=True)
            f = _with_parameters(self.subject, {name: piece.view_as(each) for (name, each), piece in own})
        found = self.subject.run(f, {**self.tensors, **dict(zip(self.names, given, strict=False))})
        return tuple([each for each in found if can_have_gradient(each)])


class _Method(nn.Module):
    """A module whose forward calls a method of another module, because `functional_call` calls only forward."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the method."""
        return getattr(self.module, self.name)(*args, **kwargs)


def _with_parameters(subject: Subject, parameters: Mapping[str, Tensor]) -> Callable[..., Any]:
    """Return the subject's circuit as a function, with these tensors as its parameters."""
    name = "__call__" if isinstance(subject.f, nn.Module) else subject.f.__name__
    called = _Method(subject.module, name)
    own = {f"module.{name}": each for name, each in parameters.items()}
    return lambda *args, **kwargs: functional_call(called, own, args, kwargs)


def _check(
    subject: Subject, check: Callable[..., bool], run: Callable[..., Any], given: list[Tensor], order: str, *notes: str
) -> None:
    """Raise BrokenLaw if `check`, torch's gradcheck or gradgradcheck, finds a difference from finite differences."""
    try:
        with seeded(subject.seed + 1):
            check(run, given, fast_mode=True)
    except GradcheckError as error:
        first = f"{error}".strip().splitlines()[0].rstrip(".,:")
        fail(subject, f"{order} differ from finite differences: {first}", *notes)
