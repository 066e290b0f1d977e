"""The exceptions of this library, and `point`, which marks a place in a text with carets.

`CircuitError` is the base class of the others, so `except CircuitError` catches every mistake that this library
detects. Each message is written in the module that detects the mistake.
"""

import difflib
import functools
import inspect
import reprlib
import types
import unicodedata
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

import torch

from circuits.tracebacks import hide_frames

P = ParamSpec("P")
R = TypeVar("R")

QUOTE_LENGTH = 100
"""The most characters of a text that one line of a message quotes around the fault."""


class CircuitError(Exception):
    """Base class of all errors that this library raises; raised itself if no subclass describes the mistake.

    For example: a module that `torch.vmap` cannot map, or an attribute named by `fixed` that the module does not have.

    Where an error leaves the library, the frames of the library are removed from its traceback: the last line that the
    traceback shows is the caller's. So they are where a model raises another exception while it is traced, with those
    of torch: its last line is one of the model. The environment variable `CIRCUITS_FRAMES=1` keeps them.
    """

    def hide_frames(self) -> None:
        """Remove from the traceback the frames of this library, those of `models` too.

        For constructors of models, in an `except` that then raises the error again; see `tracebacks.hide_frames`.
        """
        hide_frames(self, models=True)


class SignatureError(CircuitError, ValueError):
    """A signature or pattern cannot be parsed, or does not fit the function, module or call that it is used for.

    For a circuit this is raised when it is declared or lifted, before any call. The message quotes the text if it is at
    fault, with carets under the faulty part. It is also a `ValueError`.
    """


class ShapeError(CircuitError, TypeError):
    """The tensors of a call do not fit the signature or pattern, in type, dtype, number of axes or size.

    For a circuit the message lists every tensor with its axes and sizes, and every mismatch of the call. It is also a
    `TypeError`. Under `torch.compile(fullgraph=True)` Dynamo raises its own exception, which contains this message.
    """


class DtypeError(ShapeError):
    """The sizes of a call fit, but a tensor has another dtype than the circuit declares by `dtypes=`."""


class OperationError(CircuitError, RuntimeError):
    """torch cannot compute an operation of tensors with these dtypes or devices; a RuntimeError too, as torch's own."""


class ArgumentError(CircuitError, TypeError):
    """The arguments do not fit the parameters of what is called; a TypeError too, as Python's own."""


class CircuitWarning(UserWarning):
    """Something is valid that is probably a mistake: an axis of an einsum whose name looks like another's."""


def entry_point(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: remove the frames of this library from the tracebacks of some errors that a function raises.

    These are CircuitErrors, exceptions of a recorded model (`mark_raised_in_run`), and the TypeError of Python if the
    arguments do not fit the function; to it a note is added that says how the function is called.

    It costs a call of a Python function. Functions that are called often have its `try` in their own body.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CircuitError as error:
            hide_frames(error)
            raise
        except Exception as error:
            if isinstance(error, TypeError) and _is_of_the_call(error):
                error.add_note(_how_to_call(function))
                hide_frames(error)
            elif vars(error).get(_IN_RUN):
                hide_frames(error)
            raise

    return call


def _is_of_the_call(error: Exception) -> bool:
    """Return whether no line of the function that `entry_point` has called has run: the arguments do not fit it.

    The traceback is read here, because as a variable of `call` it would keep all frames alive: `call` is one of them.
    """
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


_IN_RUN = "_raised_in_run"


def mark_raised_in_run(error: Exception) -> None:
    """Mark an exception that a recorded model has raised: `entry_point` then removes the frames of this library."""
    if not vars(error).get(_IN_RUN) and not isinstance(error, CircuitError):
        vars(error)[_IN_RUN] = True


def _how_to_call(function: Callable[..., Any]) -> str:
    """Return the parameters of a function, and the first sentence about it."""
    about = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    name = function.__qualname__.removesuffix(".__init__")
    return f"{name}{parameters_text(function)}{': ' if about else ''}{about}"


def parameters_text(function: Callable[..., Any]) -> str:
    """Return the parameters of a function with their defaults, without types, as `(x, *, size=3)`.

    >>> parameters_text(perhaps)
    '(name, known)'
    """
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for name, each in signature.parameters.items() if name != "self"]
    return f"{signature.replace(parameters=bare, return_annotation=signature.empty)}"


def described(value: Any) -> str:
    """Return what a value is, for messages, in a few words.

    >>> described(torch.nn.Linear), described(torch.nn.ReLU()), described([1, 2]), described(3), described(perhaps)
    ('the class Linear', 'a ReLU', 'a list', '3', 'the function perhaps')
    >>> described(torch.ones(2, 3))
    'a tensor of shape (2, 3)'
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return reprlib.repr(value)
    name = getattr(value, "__qualname__" if isinstance(value, types.FunctionType) else "__name__", None)
    if callable(value) and name:
        return f"the function {name.rpartition('<locals>.')[2]}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def entry_points(*names: str) -> Callable[[type[R]], type[R]]:
    """Class decorator: `entry_point` for the methods and class methods with these names."""

    def decorate(kind: type[R]) -> type[R]:
        for name in names:
            method = vars(kind)[name]
            is_class_method = isinstance(method, classmethod)
            short: Any = entry_point(method.__func__ if is_class_method else method)
            setattr(kind, name, classmethod(short) if is_class_method else short)
        return kind

    return decorate


def point(text: str, *spans: tuple[int, int]) -> str:
    """Return `text` and below it a line with carets under each `(start, stop)` span, both indented by four spaces.

    An empty span gets one caret, at its start. A text longer than `QUOTE_LENGTH` is cut to the part around the first
    span; unprintable characters become spaces.

    >>> print(point("y m -> y", (2, 3)))
        y m -> y
          ^
    """
    start = max(0, min((a for a, _ in spans), default=0) - QUOTE_LENGTH // 2)
    stop = start + QUOTE_LENGTH
    marked = {i for a, b in spans for i in range(max(a, start), min(max(b, a + 1), stop))}
    line, marks = "…" if start else "", " " if start else ""
    for i, letter in enumerate(text[start:stop].ljust(max(marked, default=0) + 1 - start), start):
        letter = letter if letter.isprintable() else " "
        line += letter
        marks += ("^" if i in marked else " ") * _columns(letter)
    return f"    {line.rstrip()}{'…' if len(text) > stop else ''}\n    {marks}".rstrip()


def _columns(letter: str) -> int:
    """Return the number of terminal columns that a character takes: 0, 1 or 2."""
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def perhaps(name: str, known: Collection[str]) -> str:
    """Return a suggestion, for the end of a message, if a known name is like an unknown one; "" if none is.

    >>> perhaps("in_dimm", ["b", "in_dim"])
    ' (perhaps in_dim)'
    >>> perhaps("H", ["h", "w"]), perhaps("y", ["h", "w"])
    (' (perhaps h)', '')
    """
    lowered = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), lowered, 1, 0.65)
    return f" (perhaps {lowered[found[0]]})" if found else ""
