"""Give one module instance a signature: its class becomes a subclass whose `forward` is checked."""

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn

from circuits.checking.checked_function import checked
from circuits.checking.declaration import Options
from circuits.checking.declare import declare
from circuits.errors import SignatureError


def give_signature(module: nn.Module, text: str, options: Options, where: str) -> nn.Module:
    """Add a signature to the forward of one module, in place, and return the module.

    The module's class is replaced by a subclass; its attributes do not change. An earlier signature that was added to
    this instance is replaced.

    Raises:
        SignatureError: If the signature does not fit the forward, or if `forward` was replaced on the instance.
    """
    if "forward" in module.__dict__:
        raise SignatureError(
            f"the forward of this {type(module).__name__} was replaced on the instance; decorate the replacement"
        )
    base = getattr(type(module), "__unsigned__", type(module))
    module.__class__ = _signed_class(base, text, options, where)
    return module


@functools.cache
def _signed_class(base: type[nn.Module], text: str, options: Options, where: str) -> type[nn.Module]:
    """Return a subclass of `base` whose forward has this signature; copies of its instances keep the signature."""
    forward = checked(declare(base.forward, text, options, f"{base.__name__}.forward", where))

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, args, *state = super(signed, self).__reduce_ex__(protocol)
        args = tuple(base if each is signed else each for each in args)
        return _remake, (text, options, where, make, args), *state

    kept = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    members = {**kept, "forward": forward, "__reduce_ex__": reduce, "__unsigned__": base}
    signed = types.new_class(base.__name__, (base,), exec_body=lambda body: body.update(members))
    return signed


def _remake(
    text: str, options: Options, where: str, make: Callable[..., nn.Module], args: tuple[Any, ...]
) -> nn.Module:
    """Return a copied or unpickled module: `make(*args)`, of its unsigned class, with the signature added again."""
    return give_signature(make(*args), text, options, where)
