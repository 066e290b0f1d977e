"""Give one module instance a signature: a checked `forward` in its `__dict__`, so that its type stays what it was.

A function in an instance's `__dict__` is not bound to the module that calls it, so each copy needs its own. The entries
of `_ENTRIES`, which are bound methods too, sign the copies: Python looks them up on the instance.
"""

import functools
import types
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from circuits.checking.checked_function import checked
from circuits.checking.declaration import Options
from circuits.checking.declare import declare
from circuits.errors import CircuitError, SignatureError


def give_signature(module: nn.Module, text: str, options: Options, where: str) -> nn.Module:
    """Add a signature to the forward of one module, in place, and return the module.

    The type of the module stays what it was, so a new instance of it (a slice of an `nn.Sequential`, a layer that
    replaces this one) has no signature. Copies have the signature too. An earlier signature that was added to this
    instance is replaced.

    Raises:
        SignatureError: If the signature does not fit the forward, or if `forward` was replaced on the instance.
    """
    kind = type(module)
    if "forward" in module.__dict__ and _signed_with(module) is None:
        raise SignatureError(
            f"the forward of this {kind.__name__} was replaced on the instance; decorate the replacement"
        )
    entries = {"forward": _signed_forward(kind.forward, kind.__name__, text, options, where), **_ENTRIES}
    if not hasattr(kind, "__deepcopy__"):
        del entries["__deepcopy__"]
    module.__dict__.update({name: types.MethodType(function, module) for name, function in entries.items()})
    return module


@functools.lru_cache(maxsize=256)
def _signed_forward(
    forward: Callable[..., Any], class_name: str, text: str, options: Options, where: str
) -> Callable[..., Any]:
    """Return the checked forward of a class; `signed_with` holds what its copies are signed with."""
    function = checked(declare(forward, text, options, f"{class_name}.forward", where, is_method=True))
    function.signed_with = (text, options, where)
    return function


def _signed_with(module: nn.Module) -> tuple[str, Options, str] | None:
    """Return what `give_signature` signed this instance with, or None if it did not, or its forward was replaced."""
    forward: Any = module.__dict__.get("forward")
    return getattr(forward, "signed_with", None) if getattr(forward, "__self__", None) is module else None


def _sign_like(copied: nn.Module, module: nn.Module) -> nn.Module:
    """Give a copy of a module its signature; the copy of a module whose signed forward was replaced stays as it is."""
    signed_with = _signed_with(module)
    if signed_with is None:
        return copied
    copied.__dict__.pop("forward", None)
    return give_signature(copied, *signed_with)


def _reduce(self: nn.Module, protocol: Any) -> Any:
    """Return how a copy or a pickle is made: as its class makes it, without the entries, and then signed."""
    make, args, *state = type(self).__reduce_ex__(self, protocol)
    signed_with = _signed_with(self)
    entries = {*_ENTRIES} if signed_with is None else {*_ENTRIES, "forward"}
    args, state = (tuple([_without(entries, each) for each in part]) for part in (args, state))
    return (make, args, *state) if signed_with is None else (_remake, (*signed_with, make, args), *state)


def _without(entries: Collection[str], thing: Any) -> Any:
    """Return a copy of a module's `__dict__` without the entries; anything else as it is."""
    if not isinstance(thing, dict):
        return thing
    return {name: value for name, value in thing.items() if name not in entries}


def _replicate(self: nn.Module) -> nn.Module:
    """Return the replica of a module for one device, which `nn.DataParallel` makes from a copy of the `__dict__`."""
    replica = type(self)._replicate_for_data_parallel(self)
    return _sign_like(replica, self)


def _deepcopy(self: Any, memo: dict[int, Any]) -> nn.Module:
    """Return a deep copy of a module whose class has a `__deepcopy__`, such as `torch.fx.GraphModule`."""
    return _sign_like(type(self).__deepcopy__(self, memo), self)


def _prepare_scriptable(self: Any) -> nn.Module:
    """Raise CircuitError: torch.jit.script would compile the source of the forward among the names of its check."""
    if _signed_with(self) is not None:
        raise CircuitError(
            f"torch.jit.script cannot compile {self.forward.circuit.title}, whose check is generated code: "
            "use torch.jit.trace, torch.export or torch.compile, or remove the signature with `del module.forward`"
        )
    return self


_ENTRIES = {
    "__reduce_ex__": _reduce,
    "__deepcopy__": _deepcopy,
    "_replicate_for_data_parallel": _replicate,
    "__prepare_scriptable__": _prepare_scriptable,
}
"""What `copy` and `pickle`, `nn.DataParallel` and `torch.jit.script` look up on the instance."""


def _remake(
    text: str, options: Options, where: str, make: Callable[..., nn.Module], args: tuple[Any, ...]
) -> nn.Module:
    """Return a copied or unpickled module: `make(*args)`, with the signature added again."""
    return give_signature(make(*args), text, options, where)
