"""trace: the diagram of a circuit, module or function, from a run without data.

A copy of the model with fake tensors (tensors without data) runs on fake inputs; the model itself is not changed. The
sizes of axes that are not given are symbolic, and all sizes are expressions in them: `y`, `h/2`.

Source: torch's FakeTensorMode and ShapeEnv, which torch.export uses in the same way.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch._dispatch.python import enable_python_dispatcher

from circuits.checking import find_circuit
from circuits.diagram import Diagram, operation_name
from circuits.errors import CircuitError, entry_point, mark_raised_in_run
from circuits.recording.assembly import assemble
from circuits.recording.aten_calls import RecordedFakeMode
from circuits.recording.builder import Builder
from circuits.recording.call_arguments import BoundCall, bind_call, target_name
from circuits.recording.fake_copy import FakeCopier
from circuits.recording.free_functions import FreeFunctions
from circuits.recording.intercepted_calls import uncompiled
from circuits.recording.interception import recorded_by
from circuits.recording.leaks import clear_caches, remove_leaks
from circuits.recording.listener import Listener, unrecorded
from circuits.recording.recursion import more_frames
from circuits.recording.symbols import HINTS, Symbols, TracingShapeEnv, axis_symbol, multiple_of
from circuits.recording.thread_modes import restores_modes
from circuits.recording.trace_errors import is_of_sizes, refuse_data_dependent_sizes, sizes_to_give, translated_errors
from circuits.recording.trace_inputs import (
    advice_on_inputs,
    parameters_of_target,
    refuse_target,
    refuse_untraceable_modules,
    trace_inputs,
)
from circuits.tracebacks import ends_in_library


@entry_point
def trace(
    target: Any,
    /,
    *args: Any,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Diagram:
    """Return the diagram of a circuit, a module or any function of tensors, without computing anything.

    The target runs once, on tensors without data. A circuit with a kernel runs its definition. The model, its state and
    the random number generators (torch's on the CPU, Python's, numpy's) are unchanged. A free axis has an example size
    in this run, on which no result depends; if the run fails, perhaps because a model has a largest size, it is
    repeated with smaller example sizes.
    Ctrl-C during a run raises KeyboardInterrupt when this run ends; a second Ctrl-C raises it at once, which may end
    the process, because torch's C++ does not expect exceptions everywhere.
    Code that makes a text of a free size (`str(n)`, not only to print it or to raise) fixes the size. A free size is no
    `int` to `isinstance(n, int)` and `type(n) is int`, as in torch.export, and this is not noticed: code that depends
    on it takes the branch for other types, unless the axis is given a size.
    If the code needs a number of a parameter, a buffer or a tensor outside the run, it gets the present one, and the
    diagram refuses to run with another.

    Args:
        target: The circuit, `nn.Module` or function; a compiled one is traced as the code that it wraps.
        *args: The positional arguments of the call; the data of tensors is not used. All arguments are copied, so that
            the call does not change them. If there are none, and no keyword argument holds a tensor, the inputs are
            made from `axes`, or else from the signature of the circuit. They have the dtype and device of
            the model's first floating-point parameter, or torch's defaults; the `dtypes` of a circuit take precedence.
        sizes: Sizes of axes of the inputs that are made; the other sizes are symbolic.
        axes: The axes of the tensor arguments in order, separated by commas: `axes="b c h w"`. For inputs that are
            made, `16*h` is a size that must be a multiple of 16; a circuit declares this by `multiples=`.
        **kwargs: The keyword arguments of the call.

    Raises:
        CircuitError: The run depends on data (`if x.item()`, boolean indexing), a part of the model cannot be copied or
            has parameters without sizes, the run keeps a tensor in a global or a class, the target is not callable, or
            the arguments, `sizes` and `axes` do not fit the target or each other.
        TypeError: The arguments do not fit the parameters of the target.
        Exception: Any exception that the model's own code raises, with the lines of the model alone in its traceback.

    >>> print(trace(nn.Linear(4, 3), axes="b m", sizes={"m": 4}))
    box       axes        sizes       parameters  notes
    Linear    b m -> b 3  b 4 -> b 3          15
      linear  b m -> b 3  b 4 -> b 3          15  weight, bias
    <BLANKLINE>
    axes         m=4, b free from input
    parameters   15 (60 B): all trained
    activations  3*b (12*b B)
    """
    target = uncompiled(target)
    refuse_target("trace", target)
    failure, notes, given, tried, runs, with_state = None, [], "", [], [*HINTS], False
    while runs:
        listener = Listener(definitions=True, lines=True)
        symbols = Symbols(TracingShapeEnv(listener, _current_operation_name), runs.pop(0))
        mode = RecordedFakeMode(listener, with_state, shape_env=symbols.env, allow_non_fake_inputs=True)
        try:
            with more_frames():
                diagram = _trace(target, args, kwargs, sizes or {}, axes, mode, symbols)
        except Exception as error:
            if type(error) is CircuitError and mode.known.met_state and not with_state:
                runs, with_state = [symbols.hints, *runs], True
                continue
            if failure is None:
                failure, given = error, sizes_to_give(error, symbols)
                notes = [*getattr(error, "__notes__", ()), *advice_on_inputs(error, args, axes)]
            if not symbols.sizes or type(error) is CircuitError or not is_of_sizes(error):
                break
        else:
            if failure is None or not diagram.fixed:
                return diagram
        finally:
            _end(listener)
        tried.append(symbols.hints_text())
    try:
        raise _with_notes(failure, notes, tried, given)
    finally:
        del failure  # Otherwise the exception, which has this frame in its traceback, would hold itself.


def _end(listener: Listener) -> None:
    """Drop the record and the copies of a run, to which fake tensors refer, and what a failed run left in caches.

    A view holds its base in C++. Were the view reachable from the base, by the fake mode and its recorder, the garbage
    collector would keep both, and with them all of the run.
    """
    clear_caches(listener.values.fakes())
    listener.begin()
    listener.on_event = listener.substitute_module = None


def _with_notes(failure: Any, notes: Sequence[str], tried: Sequence[str], given: str) -> Any:
    """Return the exception of the first run with its notes, and one that lists the example sizes that were tried."""
    if tried:
        notes = [*notes, f"the free axes had the sizes {', then '.join(tried)}; trace(..., {given}) gives others"]
    if notes:
        failure.__notes__ = notes
    return failure


@restores_modes
def _trace(
    target: Any,
    args: Any,
    kwargs: Any,
    sizes: Mapping[str, int],
    axes: str | None,
    mode: RecordedFakeMode,
    symbols: Symbols,
) -> Diagram:
    """Return the diagram of one run, with the hints of `symbols` for free axes."""
    listener = mode.listener
    listener.format_size = mode.format_size = symbols.text
    listener.on_event = partial(refuse_data_dependent_sizes, listener, symbols)
    copier = FakeCopier(mode, listener)
    refuse_untraceable_modules(target)
    with unrecorded():
        run = copier.target(target)
    symbols.used_hints |= {size for parameter in parameters_of_target(target) for size in parameter.shape}
    with (
        unrecorded(), translated_errors(symbols), mode, enable_python_dispatcher(), FreeFunctions(sizes_only=True),
    ):  # fmt: skip
        given = trace_inputs(target, axes, symbols, sizes, args, kwargs, copier.inputs)
        bound = bind_call(target, given.args, given.kwargs)
        try:
            _run(listener, target, run, bound)
        finally:
            listener.record.snapshot.restore_generators()
            listener.record.scopes.put_back()
            copier.restore_originals()
    builder = Builder(listener.record, symbols.size, bound.signature, given.axes).feed_all()
    free = {axis_symbol(size): symbols.raw(raw) * multiple_of(size) for raw, size in symbols.expressions.items()}
    diagram = assemble(builder, symbols.raw, free, symbols.guards(), symbols.fixed())
    del run, given, bound, builder
    remove_leaks(listener.values.fakes(), copier.end())
    return diagram


def _current_operation_name(listener: Listener) -> str:
    return operation_name(listener.current_operation) if listener.current_operation is not None else ""


def _run(listener: Listener, target: Any, run: Any, bound: BoundCall) -> None:
    """Record a run of the copy; add to an exception a note that lists the boxes in which it was raised."""
    with recorded_by(listener, run):
        try:
            if isinstance(target, nn.Module) or find_circuit(target) is not None:
                run(*bound.args, **bound.kwargs)
            else:
                if isinstance(getattr(run, "__self__", None), nn.Module):
                    run = getattr(run.__self__, run.__name__)  # may be intercepted since the recording began
                listener.record_function(target_name(target), run, bound.args, bound.kwargs)
        except Exception as error:
            error.add_note(f"while tracing {' > '.join(listener.stack.error_path)}")
            if listener.stack.is_of_operation or not ends_in_library(error):
                mark_raised_in_run(error)
            raise
