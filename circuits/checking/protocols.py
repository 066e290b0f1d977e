"""The types of decorated functions and of the decorator, as type checkers see them."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

from torch import nn

from circuits.checking.declaration import Circuit, Sends

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")
Module = TypeVar("Module", bound=nn.Module)
Owner = TypeVar("Owner")
Function = TypeVar("Function", bound=Callable[..., Any])


class Checked(Protocol[P, R_co]):
    """A decorated function: the same call, the declaration, and decorators that register a kernel and a backward."""

    __name__: str
    __qualname__: str

    @property
    def circuit(self) -> Circuit:
        """The declaration."""
        ...

    def kernel(self, function: Function, *, across: str = "", sends: Sends | None = None) -> Function:
        """Register a kernel: a function with the same parameters that runs in place of the definition.

        Args:
            function: The kernel; its parameters must have the same names as those of the definition.
            across: Axes, one of each input and output, that the kernel reads across if it is given distributed tensors
                (DTensor) that are split along all of them: it then communicates by itself, as `plan_sharding` plans.
            sends: What it communicates, for the plan; called with the number of `ranks`, the `dtype` and the arguments
                that are no tensors.

        Returns:
            `function` itself, so that `kernel` can be used as a decorator.

        Raises:
            SignatureError: If the names of the parameters differ, or `across` does not fit the signature.
        """
        ...

    def backward(self, function: Function) -> Function:
        """Register a backward circuit, which computes the cotangents of the inputs.

        Args:
            function: The backward circuit. It takes all parameters of the definition, `self` first in a method, then
                the cotangents of the definition's outputs, except outputs without a cotangent. It returns the
                cotangents of the signature's inputs in order, None for an input without a cotangent. If gradients may
                flow to further tensors, it returns last a dict of their cotangents: optional tensors by the names of
                their parameters, the parameters of a module by their qualified names.

        Returns:
            `function` itself, so that `backward` can be used as a decorator.

        Raises:
            SignatureError: If `function` cannot be called with these arguments.
        """
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> Self: ...
    @overload
    def __get__(self: "Checked[Concatenate[Any, Q], R]", instance: object, owner: Any = None) -> "Checked[Q, R]": ...


class Decorator(Protocol):
    """The result of `circuit(...)`, which takes a function, a method or a module.

    For type checkers a method of a module and a class method remain plain callables: they do not allow `forward` to be
    overridden by an object with further attributes, nor `classmethod` to bind one. There `kernel_of` and `backward_of`
    take the place of the attributes `kernel` and `backward`.
    """

    @overload
    def __call__(self, thing: Module, /) -> Module: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, thing: Callable[Concatenate[Module, P], R], /
    ) -> Callable[Concatenate[Module, P], R]: ...
    @overload
    def __call__(
        self, thing: Callable[Concatenate[type[Owner], P], R], /
    ) -> Callable[Concatenate[type[Owner], P], R]: ...
    @overload
    def __call__(self, thing: Callable[P, R], /) -> Checked[P, R]: ...
