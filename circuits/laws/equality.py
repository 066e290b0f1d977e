"""Laws of equality: of circuit and reference, of compiled and uncompiled circuit."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from circuits.checking import parameters_of
from circuits.laws.comparison import assert_gradients_close, assert_outputs_close, fail
from circuits.laws.counterexample import smallest_counterexample, without_our_frames
from circuits.laws.gradients import values_and_gradients
from circuits.laws.inputs import Source
from circuits.laws.sizes import Sizes
from circuits.laws.subject import Subject


@smallest_counterexample
def equals(
    f: Any,
    /,
    reference: Callable[..., Any],
    *,
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """The circuit has the outputs and gradients of `reference`.

    Args:
        f: A circuit.
        reference: A function with the arguments of the circuit. If its first parameter is called `module`, the copy of
            the module, whose parameters are randomized, is passed as the first argument.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: Outputs or gradients differ by more than the tolerance of the dtype.

    >>> from circuits import circuit
    >>> equals(circuit("a b -> a")(lambda x: x.sum(-1)), lambda x: torch.stack([sum(row) for row in x]))
    """
    subject = Subject("equals", f, sizes, inputs, seed, arguments)
    takes_module = "module" in [each.name for each in parameters_of(reference)[:1]]
    bound = partial(reference, subject.module) if takes_module else reference
    for optional in subject.optional_subsets():
        tensors = subject.tensors(optional)
        values, gradients = values_and_gradients(subject, subject.f, tensors)
        expected, expected_gradients = values_and_gradients(subject, bound, tensors)
        origins, notes = ("by the circuit", "by the reference"), [f"with {name}" for name in optional]
        assert_outputs_close(subject, values, expected, origins, *notes)
        assert_gradients_close(subject, gradients, expected_gradients, origins, *notes)


@without_our_frames
def compiles(
    f: Any,
    /,
    *,
    backend: str = "eager",
    sizes: Sizes | None = None,
    inputs: Mapping[str, Source] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> None:
    """`torch.compile` makes one graph of the circuit, with static and with dynamic sizes, that has equal results.

    With dynamic sizes the graph must be valid for other sizes too, without recompilation. All code that torch compiled
    before, anywhere in the process, is discarded (`torch.compiler.reset`). The sizes of a counterexample are not
    reduced.

    Args:
        f: A circuit.
        backend: The backend of torch.compile: "eager" runs the graph as it is, "aot_eager" also traces gradients,
            "inductor" generates code, which is slow.
        sizes, inputs, seed, arguments: As for every law, see `circuits.laws`.

    Raises:
        AssertionError: The circuit does not compile into one graph, or the compiled circuit has other outputs or
            gradients.

    >>> from circuits import circuit
    >>> compiles(circuit("a b -> b")(lambda x: x.sum(0)))
    """
    subject = Subject("compiles", f, sizes, inputs, seed, arguments)
    try:
        for dynamic in (False, True):
            torch.compiler.reset()
            compiled = torch.compile(subject.f, fullgraph=True, dynamic=dynamic, backend=backend)
            for optional in subject.none_and_all():
                how = "dynamic sizes" if dynamic else "static sizes"
                _check_compiled(subject, compiled, subject.tensors(optional), how, *optional)
                if dynamic:
                    sizes, lead = subject.axis_sizes.alternatives()
                    tensors = subject.tensors(optional, sizes=sizes, lead=lead)
                    how = "dynamic sizes, and sizes other than it was compiled for"
                    with torch.compiler.set_stance("fail_on_recompile"):
                        _check_compiled(subject, compiled, tensors, how, *optional)
    finally:
        torch.compiler.reset()


def _check_compiled(
    subject: Subject, compiled: Callable[..., Any], tensors: Mapping[str, Tensor], how: str, *given: str
) -> None:
    """Raise BrokenLaw unless the compiled circuit runs and has the outputs and gradients of the uncompiled one."""
    expected, expected_gradients = values_and_gradients(subject, subject.f, tensors)
    notes = [how, *[f"with {name}" for name in given]]
    try:
        values, gradients = values_and_gradients(subject, compiled, tensors)
    except Exception as error:
        first = next((line for line in f"{error}".splitlines() if line.strip()), "").strip()
        fail(subject, f"it does not compile into one graph: {type(error).__name__}: {first}", *notes)
    origins = ("when compiled", "when not compiled")
    assert_outputs_close(subject, values, expected, origins, *notes)
    assert_gradients_close(subject, gradients, expected_gradients, origins, *notes)
