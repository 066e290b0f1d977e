"""Compile the generated source of a circuit to a function, and register its kernel and its backward circuit."""

import functools
import inspect
import linecache
import weakref
from collections.abc import Callable
from typing import Any

from circuits.checking import runtime
from circuits.checking.declaration import Across, Circuit, Sends
from circuits.checking.parameters import POSITIONAL, parameters_of
from circuits.checking.protocols import Function
from circuits.checking.validation import refuse_generators
from circuits.checking.wrapper import source, unused_prefix
from circuits.errors import SignatureError, described, entry_point


def checked(spec: Circuit) -> Any:
    """Return the function that checks a call of the circuit and runs it.

    Tracebacks show the lines of its source, which are kept in `linecache` as long as the function exists.
    """
    parameters = parameters_of(spec.definition)
    prefix = unused_prefix(parameters)
    names = {
        "circuit": spec,
        "body": spec.definition,
        "defaults": {each.name: each.default for each in parameters},
        "dtypes": {each.name: each.dtype for each in spec.slots},
    }
    if prefix != "_":
        names |= runtime.SHARED
    text = source(spec, names)
    filename = f"<circuit {spec.name} at {spec.where}>"
    try:
        code = compile(text, filename, "exec")
    except RecursionError:
        raise SignatureError(f"{spec.name}: arithmetic in the signature has more terms than Python compiles") from None
    lines = linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {}
    exec(code, runtime.__dict__, scope)
    function, set_body = scope["make"](**{f"{prefix}{name}": thing for name, thing in names.items()})
    weakref.finalize(function, _forget, filename, lines).atexit = False
    functools.update_wrapper(function, spec.definition)
    function.circuit = spec
    function.kernel = functools.partial(_register_kernel, spec, set_body)
    function.backward = functools.partial(_register_backward, spec)
    return function


@entry_point
def kernel_of(f: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorator: register a kernel of a circuit, as `@f.kernel` does.

    Type checkers see a method as a plain function, without the attribute `kernel`: for a method, write
    `@kernel_of(forward)`.

    Args:
        f: A decorated function or method.

    Raises:
        SignatureError: If `f` is not a circuit, or if the names of the parameters differ.

    >>> from circuits import circuit
    >>> class Double:
    ...     @circuit("y -> y")
    ...     def twice(self, x):
    ...         return x + x
    ...
    ...     @kernel_of(twice)
    ...     def _(self, x):
    ...         return 2 * x
    """
    return _registrar(f, "kernel")


@entry_point
def backward_of(f: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorator: register a custom backward circuit of a circuit, as `@f.backward` does; see `kernel_of`.

    Args:
        f: A decorated function or method.

    Raises:
        SignatureError: If `f` is not a circuit, or if the backward circuit takes other arguments.
    """
    return _registrar(f, "backward")


def _registrar(f: Any, kind: str) -> Callable[[Function], Function]:
    """Return the decorator `f.kernel` or `f.backward`."""
    if not isinstance(getattr(f, "circuit", None), Circuit):
        raise SignatureError(f"{kind}_of takes a function or method that `@circuit` decorates, not {described(f)}")
    return getattr(f, kind)


def _forget(filename: str, lines: Any) -> None:
    """Remove the lines of a source from `linecache`, unless a circuit of the same name and place replaced them."""
    if linecache.cache.get(filename) is lines:
        del linecache.cache[filename]


@entry_point
def _register_kernel(
    spec: Circuit,
    set_body: Callable[..., None],
    kernel: Callable[..., Any],
    *,
    across: str = "",
    sends: Sends | None = None,
) -> Callable[..., Any]:
    """Register `kernel` to run instead of the definition; `across` and `sends` are those of `Checked.kernel`.

    Raises:
        SignatureError: If its parameters have other names, if it is a generator or async, or if an input or output has
            not one of the axes of `across`.
    """
    refuse_generators(kernel, f"the kernel of {spec.name}")
    expected, found = ([each.name for each in parameters_of(f)] for f in (spec.definition, kernel))
    if expected != found:
        raise SignatureError(
            f"a kernel of {spec.name} takes ({', '.join(expected)}); this one takes ({', '.join(found)})"
        )
    names = set(across.split())
    for axes in (*spec.signature.inputs, *spec.signature.outputs) if across else ():
        if sum([bool(names & set(term.names)) for term in axes]) != 1:
            raise SignatureError(f"across={across!r}: each tensor of {spec.title} has to have one of these axes")
    spec.body.kernel, spec.body.across = kernel, Across(tuple(across.split()), sends) if across and sends else None
    set_body(kernel)
    return kernel


@entry_point
def _register_backward(spec: Circuit, function: Callable[..., Any]) -> Callable[..., Any]:
    """Register the backward circuit; SignatureError if it does not take the circuit's parameters, then cotangents."""
    parameters = parameters_of(spec.definition)
    positional = [each for each in parameters if each.kind in POSITIONAL]
    args = [None] * max(len(positional), len(spec.inputs) + bool(spec.owner))
    kwargs = dict.fromkeys([each.name for each in parameters if each.kind is each.KEYWORD_ONLY])
    found = inspect.Signature(list(parameters_of(function)))
    if not any(_accepts(found, [*args, *[None] * count], kwargs) for count in range(1, len(spec.results) + 1)):
        raise SignatureError(
            f"a backward circuit of {spec.name} takes ({', '.join([each.name for each in parameters])}) and the "
            f"cotangents of its outputs; this one takes ({', '.join(found.parameters)})"
        )
    spec.body.backward = function
    return function


def _accepts(signature: inspect.Signature, args: list[None], kwargs: dict[str, None]) -> bool:
    """Return whether a function with this signature can be called with these arguments."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
