"""`broadcast`: lift a circuit over further axes, given its lifted signature.

Indexing the inputs and then applying the circuit equals applying the lifted circuit and then indexing the outputs.
If the circuit has `...` on every lifted tensor, the lifted axes are moved to the front, where `...` matches them, and
the circuit runs once; otherwise `torch.vmap` maps it over one lifted axis after another. An argument is lifted over the
axes that the lifted signature adds to it, and shared along the others.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3.2, Definition 2.14, Figures 10 to 12.
"""

import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from torch import nn
from torch.func import functional_call

from circuits.broadcasting.lifted import LiftedCircuit, Randomness
from circuits.broadcasting.plan import lifted_optional, plan_lift
from circuits.broadcasting.refusals import refuse_module
from circuits.checking import Checked, Options, checked, declare, find_circuit, fixed_sizes, parameters_of
from circuits.errors import CircuitError, SignatureError, described, entry_point
from circuits.signature import plain_size

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
@entry_point
def broadcast(
    f: Any,
    signature: str,
    *,
    optional: Mapping[str, str] | None = None,
    chunk_size: int | None = None,
    randomness: Randomness = "error",
) -> Any:
    """Return the circuit `f` vectorized over the axes that `signature` adds to its own, as `torch.vmap` does.

    The result at each index of the added axes is that of `f` on the inputs at this index. Every output has all added
    axes. An input without an added axis is shared along it (inner broadcasting), and so is every argument outside the
    signature. Axes are identified by name: the lifted signature may have those of `f` in another order. `...` may be
    added too.

    Args:
        f: A circuit: a decorated function, a bound method of an object, or a module whose forward is a circuit.
        signature: The lifted signature: that of `f`, in which inputs and outputs have further axes.
        optional: The axes of optional tensors after the lift, as `{"mask": "h y x"}`. Optional tensors that are left
            out are shared by every index.
        chunk_size: How many indexes of the first lifted axis, in the order of the first output, are computed at a time;
            None for all.
        randomness: "error", "different" or "same": the argument of `torch.vmap` for random operations. If the circuit's
            own `...` matches the lifted axes, torch.vmap is not used and random operations run as in any other call;
            with "same", torch.vmap is used even then.

    Returns:
        A circuit with the lifted signature; a module, with `f` as its submodule `module`, if `f` is a module.

    Raises:
        SignatureError: If `f` has no signature, or if `signature` is not that of `f` with further axes; the message
            names the axis.
        CircuitError: If `chunk_size` or `randomness` is invalid. At a call, for an operation or a module that
            torch.vmap cannot map, such as an LSTM or a BatchNorm in train mode; the message names it.

    Source: Figures 10, 11 and 12, Definition 2.14.

    >>> import torch
    >>> from circuits import circuit
    >>> total = circuit("a, d -> ")(lambda x, y: x.sum() * y.sum())
    >>> broadcast(total, "a c, d -> c")(torch.ones(3, 2), torch.ones(4))
    tensor([12., 12.])
    """
    frame = sys._getframe(2)  # the first is that of `entry_point`
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return _lift(f, signature, dict(optional or {}), chunk_size, randomness, where)


def _lift(
    f: Any, text: str, optional: dict[str, str], chunk_size: int | None, randomness: Randomness, where: str
) -> Any:
    """Return the result of `broadcast`, called at the line `where`; pickles of lifted modules call this function."""
    circuit = find_circuit(f)
    if circuit is None:
        raise SignatureError(
            f"broadcast takes a circuit, and {described(f)} has no signature; add one first, as circuit('a -> b')(f)"
        )
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    if circuit.owner and owner is None:
        raise SignatureError(f"broadcast: {circuit.name} is an unbound method; pass a bound method")
    plan, chunk_size = plan_lift(circuit, text, optional), plain_size(chunk_size)
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise CircuitError(f"broadcast: chunk_size must be None or a positive int, not {chunk_size!r}")
    if randomness not in ("error", "different", "same"):
        raise CircuitError(f"broadcast: randomness must be 'error', 'different' or 'same', not {randomness!r}")
    run = LiftedCircuit(circuit, plan, chunk_size, randomness)
    options = Options.of(
        lifted_optional(circuit, text, optional),
        fixed_sizes(circuit, owner),
        circuit.dtypes,
        circuit.multiples,
        circuit.hints,
    )
    if isinstance(f, nn.Module):
        return _lift_module(f, run, options, where, (text, optional, chunk_size, randomness))

    def lifted(*args: Any, **kwargs: Any) -> Any:
        return run(f, args, kwargs)

    _copy_metadata(lifted, f, parameters_of(circuit.definition)[bool(circuit.owner) :])
    return checked(declare(lifted, text, options, circuit.name, where))


def _copy_metadata(function: Any, like: Any, parameters: Sequence[inspect.Parameter]) -> None:
    """Copy the name, the module and the docstring of `like` to `function`, and set its signature to `parameters`."""
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        if hasattr(like, name):
            setattr(function, name, getattr(like, name))
    function.__signature__ = inspect.Signature(parameters)


class Broadcast(nn.Module):
    """A module lifted by `broadcast`; its submodule `module` is the original module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def extra_repr(self) -> str:
        """Return the lifted signature, which `repr` shows in brackets."""
        found = find_circuit(self)
        return f"{found.signature}" if found is not None else ""


def _lift_module(
    f: nn.Module, run: LiftedCircuit, options: Options, where: str, arguments: tuple[Any, ...]
) -> nn.Module:
    """Return a module of a new class, whose forward has the lifted signature and the parameters of the forward of `f`.

    `arguments` are the arguments of `_lift` between `f` and `where`; copies and pickles call `_lift` with them again.
    """

    def forward(self: Broadcast, *args: Any, **kwargs: Any) -> Any:
        if run.batched:
            return run(self.module, args, kwargs)
        refuse_module(self.module)
        # Passed as arguments: strict export refuses parameters that a mapped function reads from its closure.
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return run(lambda *given, **named: functional_call(self.module, state, given, named), args, kwargs)

    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _copy_metadata(forward, f.forward, (this, *parameters_of(run.circuit.definition)[1:]))

    def reduce(self: Broadcast, protocol: Any) -> Any:
        return _lift, (self.module, *arguments, where), self.__dict__

    signed = checked(declare(forward, arguments[0], options, run.circuit.name, where))
    members = {"forward": signed, "__reduce_ex__": reduce, "__module__": __name__, "__doc__": Broadcast.__doc__}
    kind = types.new_class("Broadcast", (Broadcast,), exec_body=lambda body: body.update(members))
    return kind(f)
