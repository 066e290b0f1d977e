"""broadcast: lift a circuit over more axes, by its lifted signature alone.

Index, then apply, equals apply, then index. Where the circuit has `...`, the lifted axes are moved to the front and it
runs once over all of them; else `torch.vmap` maps it over one lifted axis after another. What lifts an argument is
that the lifted text gives it an axis the circuit lacks; any other is shared.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3.2, Definition 2.14, Figures 10 to 12.
"""

import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from torch import nn
from torch.func import functional_call

from circuits.broadcasting.lifted import Lift, Randomness, refuse_module
from circuits.broadcasting.plan import lifted_optional, plan_lift
from circuits.checking import Checked, Options, checked, declare, find_circuit, fixed_sizes, parameters_of
from circuits.errors import CircuitError, SignatureError

P = ParamSpec("P")
R = TypeVar("R")


@overload
def broadcast(
    f: nn.Module, signature: str, *, optional: Mapping[str, str] | None = None, chunk_size: int | None = None,
    randomness: Randomness = "error",
) -> nn.Module: ...  # fmt: skip
@overload
def broadcast(
    f: Callable[P, R], signature: str, *, optional: Mapping[str, str] | None = None, chunk_size: int | None = None,
    randomness: Randomness = "error",
) -> Checked[P, R]: ...  # fmt: skip
def broadcast(
    f: Any,
    signature: str,
    *,
    optional: Mapping[str, str] | None = None,
    chunk_size: int | None = None,
    randomness: Randomness = "error",
) -> Any:
    """The circuit `f` lifted to `signature`: a circuit again, and a module again where `f` is one.

    Axes that `f` lacks are lifted over, and stand in every output; a tensor without them is shared (inner
    broadcasting), and so is every argument outside the signature. Axes are told by name: the lifted text may have
    those of `f` in another order. `...` may be lifted too. An optional tensor is shared at every index, unless
    `optional={"mask": "h y x"}` says what axes it has once lifted.

    `chunk_size` indexes of the first lifted axis are taken at a time. Where torch.vmap maps, `randomness` says what a
    random operation does, as there; where `...` takes the lifted axes the circuit draws as it does for any `...`, and
    "same" has it mapped instead.

    Raises SignatureError, with the axis, where the signature is no lift of that of `f`; CircuitError, by name, for what
    torch.vmap cannot map: an LSTM, a BatchNorm in train mode.

    Source: Figures 10, 11 and 12, Definition 2.14.

    >>> import torch
    >>> from circuits import circuit
    >>> total = circuit("a, d -> ")(lambda x, y: x.sum() * y.sum())
    >>> broadcast(total, "a c, d -> c")(torch.ones(3, 2), torch.ones(4))
    tensor([12., 12.])
    """
    frame = sys._getframe(1)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return _lift(f, signature, dict(optional or {}), chunk_size, randomness, where)


def _lift(
    f: Any, text: str, optional: dict[str, str], chunk_size: int | None, randomness: Randomness, where: str
) -> Any:
    """`broadcast`, told the line it was called from."""
    circuit = find_circuit(f)
    if circuit is None:
        raise SignatureError(
            f"broadcast lifts circuits, and {f!r} has no signature; give it one, circuit('a -> b')(f), then lift it"
        )
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    if circuit.owner and owner is None:
        raise SignatureError(f"broadcast: {circuit.name} is a method of no object yet; lift that of an object")
    plan = plan_lift(circuit, text, optional)
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise CircuitError(f"broadcast: chunk_size is a number of indexes, 1 or more, not {chunk_size!r}")
    if randomness not in ("error", "different", "same"):
        raise CircuitError(f"broadcast: randomness is 'error', 'different' or 'same', not {randomness!r}")
    lift = Lift(circuit, plan, chunk_size, randomness)
    options = Options.of(
        lifted_optional(circuit, text, optional), fixed_sizes(circuit, owner), circuit.dtypes, circuit.multiples
    )
    if isinstance(f, nn.Module):
        return _module(f, lift, options, where, (text, optional, chunk_size, randomness))

    def lifted(*args: Any, **kwargs: Any) -> Any:
        return lift(f, args, kwargs)

    _dress(lifted, f, parameters_of(circuit.definition)[bool(circuit.owner) :])
    return checked(declare(lifted, text, options, circuit.name, where))


def _dress(function: Any, like: Any, parameters: Sequence[inspect.Parameter]) -> None:
    """Give a function the name, the words and the parameters of another."""
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        if hasattr(like, name):
            setattr(function, name, getattr(like, name))
    function.__signature__ = inspect.Signature(parameters)


class Broadcast(nn.Module):
    """A module lifted by `broadcast`; `module` is the one inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def extra_repr(self) -> str:
        """What stands in the brackets of `repr`: the lifted signature."""
        found = find_circuit(self)
        return f"{found.signature}" if found is not None else ""


def _module(f: nn.Module, lift: Lift, options: Options, where: str, again: tuple[Any, ...]) -> nn.Module:
    """The lifted module: of a class of its own, whose forward has the lifted signature and the parameters of `f`'s."""

    def forward(self: Broadcast, *args: Any, **kwargs: Any) -> Any:
        if lift.front:
            return lift(self.module, args, kwargs)
        refuse_module(self.module)
        # Handed in, not found: strict export refuses parameters that a mapped function finds by itself.
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return lift(lambda *given, **named: functional_call(self.module, state, given, named), args, kwargs)

    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _dress(forward, f.forward, (this, *parameters_of(lift.circuit.definition)[1:]))

    def reduce(self: Broadcast, protocol: Any) -> Any:
        return _lift, (self.module, *again, where), self.__dict__

    signed = checked(declare(forward, again[0], options, lift.circuit.name, where))
    members = {"forward": signed, "__reduce_ex__": reduce, "__module__": __name__, "__doc__": Broadcast.__doc__}
    kind = types.new_class("Broadcast", (Broadcast,), exec_body=lambda body: body.update(members))
    return kind(f)
