"""The inputs of a traced run: fake copies of the user's arguments, or tensors made from a signature or named axes."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.modules.linear import LinearPackedParams
from torch.nn.parameter import is_lazy

from circuits.checking import Circuit, find_circuit, fixed_sizes
from circuits.diagram import tensors
from circuits.errors import CircuitError, described, perhaps
from circuits.recording.call_arguments import python_signature, target_name
from circuits.recording.symbols import Symbols
from circuits.signature import Axes, Number, Rest, normalized, parse_axes, plain_size, show_axes


class TraceInputs(NamedTuple):
    """The fake arguments of a call, and the axes that the user named for the tensors among them, in order."""

    args: Any
    kwargs: Any
    axes: Sequence[Axes]


def trace_inputs(
    target: Any,
    axes: str | None,
    symbols: Symbols,
    sizes: Mapping[str, int],
    args: Any,
    kwargs: Any,
    fake: Callable[[Any, str], Any],
) -> TraceInputs:
    """Return the fake arguments of a traced call.

    Args:
        target: The circuit, module or function.
        axes: The axes of the tensor arguments, separated by commas; None if the user did not name them.
        symbols: The free axes of the trace; axes without a given size are added.
        sizes: Sizes of axes by name; Python's spelling of a name counts, as for keyword arguments.
        args: The user's positional arguments.
        kwargs: The user's keyword arguments.
        fake: Returns a copy of an argument of this name, in which every tensor is a fake tensor.

    Raises:
        CircuitError: The arguments, `sizes` and `axes` contradict each other; or there are no arguments, no `axes` and
            no signature, although the target needs arguments.
    """
    named = [parse_axes(part) for part in axes.split(",")] if axes is not None else None
    sizes = _normalized(sizes)
    given = tensors((args, kwargs))
    circuit = find_circuit(target)
    if args and not given and circuit is not None:
        raise CircuitError("no argument is a tensor: pass the tensors too, or pass these arguments by keyword")
    is_complete = circuit is None and named is None and (bool(kwargs) or _needs_no_arguments(target))
    if given or args or (is_complete and not sizes):
        if sizes:
            raise CircuitError(
                f"sizes ({', '.join(sizes)}) apply only to inputs that trace makes, but "
                f"{'tensors' if given else 'arguments'} were given"
            )
        _check_axes(axes, named or [], given)
        return TraceInputs(*_copies(args, kwargs, fake), named or ())
    _, kwargs = _copies((), kwargs, fake)
    if named is not None:
        # The tensors are passed by position, so each has the dtype of the parameter at its position.
        known = () if circuit is None else tuple(dict.fromkeys((*circuit.parameters, *circuit.inputs)))
        parameters = [*known, *[None] * len(named)][: len(named)]
        made = _make_tensors(target, named, parameters, circuit, symbols, sizes)
        return TraceInputs(made, kwargs, named)
    if circuit is None:
        raise CircuitError(
            f"{target_name(target)} has no signature to make inputs from: pass inputs, trace(model, x), name the "
            'axes of its tensors, trace(model, axes="b c h w"), or give their sizes, summary(model, input_size=(8, 3))'
        )
    made = _make_tensors(target, circuit.signature.inputs, circuit.inputs, circuit, symbols, sizes)
    return TraceInputs(made, kwargs, ())


def _normalized(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return sizes by names as Python spells them; raise CircuitError if two names are two spellings of one."""
    found = {normalized(name): size for name, size in sizes.items()}
    if len(found) < len(sizes):
        raise CircuitError(f"sizes ({', '.join(sizes)}) has two spellings of one name: Python reads them as one")
    return found


def _copies(args: Any, kwargs: Any, fake: Callable[[Any, str], Any]) -> tuple[Any, Any]:
    """Return the copies of arguments."""
    copied = tuple([fake(value, f"argument {place}") for place, value in enumerate(args, 1)])
    return copied, {name: fake(value, f"argument {name}") for name, value in kwargs.items()}


def _needs_no_arguments(target: Any) -> bool:
    """Return whether a target can be called without arguments and takes no `*args`."""
    signature = python_signature(target)
    if signature is None:
        return False
    parameters = signature.parameters.values()
    return all(each.default is not each.empty or each.kind is each.VAR_KEYWORD for each in parameters)


def _check_axes(text: str | None, named: Sequence[Axes], given: Sequence[Tensor]) -> None:
    """Raise CircuitError unless the axes fit the tensors: at most as many, with fitting ranks and equal numbers."""
    if len(named) > len(given):
        raise CircuitError(f"axes '{text}' describe {len(named)} tensors, but the arguments contain {len(given)}")
    for axes, tensor in zip(named, given, strict=False):
        rest = any(isinstance(term, Rest) for term in axes)
        ends = list(zip(reversed(axes[rest:]), reversed(tensor.shape), strict=False))
        numbers = all(term.value == size for term, size in ends if isinstance(term, Number))
        if not numbers or tensor.ndim < len(axes) - rest or (tensor.ndim > len(axes) and not rest):
            sizes = " ".join([f"{size}" for size in tensor.shape])
            raise CircuitError(f"axes '{show_axes(axes)}' do not fit a tensor of sizes {sizes or '()'}")


def _make_tensors(
    target: Any,
    shapes: Sequence[Axes],
    parameters: Sequence[str | None],
    circuit: Circuit | None,
    symbols: Symbols,
    sizes: Mapping[str, int],
) -> tuple[Tensor, ...]:
    """Return uninitialized tensors with these axes; under a fake mode they are fake.

    The size of an axis is that in `sizes`, else the circuit's fixed size, else symbolic. The dtype is that of the
    parameter in the circuit's `dtypes`, else that of the model's first floating-point parameter, else torch's default.
    The device is that of the same parameter of the model, else torch's default.
    """
    names = list(dict.fromkeys(name for axes in shapes for term in axes for name in term.names))
    sizes = {name: plain_size(size) for name, size in sizes.items()}
    _check_sizes(names, sizes)
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    known = {**(fixed_sizes(circuit, owner) if circuit is not None else {}), **sizes}
    multiples = circuit.multiples if circuit is not None else {}
    for name in names:
        if name not in known:
            known[name] = symbols.of(name, multiples.get(name, 1))
    dtypes = circuit.dtypes if circuit is not None else {}
    floating = next((each for each in parameters_of_target(target) if each.is_floating_point()), None)
    dtype = torch.get_default_dtype() if floating is None else floating.dtype
    device = torch.get_default_device() if floating is None else floating.device
    made = []
    for axes, name in zip(shapes, parameters, strict=True):
        size = [term.size(known) for term in axes if not isinstance(term, Rest)]
        made.append(torch.empty(size, dtype=dtypes.get(name, dtype) if name else dtype, device=device))
    return tuple(made)


def _check_sizes(names: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Raise CircuitError unless every key of `sizes` is the name of an axis and every size is an int of at least 0."""
    unknown = [name for name in sizes if name not in names]
    if unknown:
        meant = perhaps(unknown[0], names)
        raise CircuitError(f"sizes has {', '.join(unknown)}{meant}, but the axes are {' '.join(names) or 'none'}")
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CircuitError(f"sizes: {name} is {size!r}, but a size must be an int of at least 0")


def parameters_of_target(target: Any) -> list[Tensor]:
    """Return the parameters of a module, or of the module that a method is bound to; empty for other targets."""
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    return list(owner.parameters()) if isinstance(owner, nn.Module) else []


def refuse_target(view: str, target: Any) -> None:
    """Raise CircuitError unless a target can be called with tensors; `view` is the name of the public function."""
    if isinstance(target, type) and issubclass(target, nn.Module):
        name = target.__name__
        raise CircuitError(f"{view} takes a module, not the class {name}: make one of it first, {name}(...)")
    if not callable(target):
        raise CircuitError(f"{view} takes a circuit, a module or a function, not {described(target)}")


def advice_on_inputs(error: Exception, args: Sequence[Any], axes: str | None) -> list[str]:
    """Return what may help if a run failed because of the inputs themselves: sizes in place of tensors, or a dtype."""
    sizes = [each for each in args if isinstance(each, (tuple, list)) and each and all(type(n) is int for n in each)]
    if isinstance(error, TypeError) and sizes and not tensors(args):
        return [f"inputs of given sizes are made by summary(model, input_size={tuple(sizes[0])})"]
    if axes is not None and not args and re.search(r"scalar type|dtype", f"{error}"):
        return [
            "the inputs that are made are floating: pass tensors, or summary(..., input_size=, dtypes=) makes others"
        ]
    return []


def refuse_untraceable_modules(target: Any) -> None:
    """Raise CircuitError if a module cannot run without data.

    These are modules with parameters or buffers that get their sizes only when they are first called, and torch's
    statically quantized layers, whose tensors and operations have no form without data. Dynamically quantized layers
    have one; they share the class of their packed parameters with the others.
    """
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    for name, module in nn.Module.named_modules(owner) if isinstance(owner, nn.Module) else ():
        is_quantized = re.match(r"torch\.ao\.nn\.(intrinsic\.)?quantized\.modules", type(module).__module__)
        if is_quantized and not isinstance(module, LinearPackedParams):
            raise CircuitError(
                f"quantized layers cannot be traced ({name + ': ' if name else ''}{type(module).__name__}): "
                "use track on a real run"
            )
        if any(is_lazy(each) for each in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            raise CircuitError(
                f"{target_name(target)} has parameters without sizes ({name + ': ' if name else ''}"
                f"{type(module).__name__}): call it once on tensors, which initializes them, then trace it"
            )
