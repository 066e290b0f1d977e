"""Shorten the traceback of an error where it leaves the library, so that the user's line is directly above the message.

The frames of this library are removed from the traceback, and those of torch and einops among them. Frames between the
user's line and the entry point (torch's `Module.__call__`) cannot be removed, because Python adds them when the error
passes them: they get the variable `__tracebackhide__`, by which pytest and IPython hide them, and the user's line is
added once more, below them.

The environment variable `CIRCUITS_FRAMES=1`, read at import, keeps every frame.
"""

import ast
import inspect
import os
import sys
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch

ALL_FRAMES = os.environ.get("CIRCUITS_FRAMES", "0") != "0"
"""Whether tracebacks keep every frame."""

_HIDDEN = frozenset({"circuits", "torch", "einops", "contextlib", "functools"})
"""The packages whose frames are hidden. `circuits.models` are not: their lines say which part of a model failed."""


def hide_frames(error: BaseException, *, models: bool = False) -> None:
    """Shorten the traceback of an error, and of the errors that caused it.

    Call it in an `except` block of the entry point, and then `raise` without an argument, which adds no frame. Under
    torch.compile, which traces the block, it does nothing.

    Args:
        error: The error that the entry point has caught.
        models: Whether the frames of `circuits.models` are hidden too.
    """
    if torch.compiler.is_compiling():
        return
    traceback = error.__traceback__
    if ALL_FRAMES or traceback is None:
        return
    caller = traceback.tb_frame.f_back
    for each in _chain(error):
        each.__traceback__ = _shortened(each.__traceback__, models, _HIDDEN if each is error else {"circuits"})
    between: list[FrameType] = []
    while caller is not None and _is_hidden(caller, models, _HIDDEN):
        between.append(caller)
        caller = caller.f_back
    for frame in between:
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function: elsewhere f_locals are the variables themselves
            frame.f_locals["__tracebackhide__"] = True
    if between and caller is not None and error.__traceback__ is None:
        error.__traceback__ = _entry_at(caller)


def hide_own_frames(error: BaseException) -> None:
    """Remove the frames of this library from the traceback of an error; those of torch stay. Call it as `hide_frames`.

    For an error of a model that is tracked: it then looks as it would without.
    """
    if not ALL_FRAMES and not torch.compiler.is_compiling():
        error.__traceback__ = _shortened(error.__traceback__, False, {"circuits"})


def ends_in_library(error: BaseException) -> bool:
    """Return whether a line of this library has raised an error: then it is a mistake of the library."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and _is_hidden(traceback.tb_frame, False, {"circuits"})


def users_frame() -> FrameType | None:
    """Return the innermost frame that is not of a hidden package, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_hidden(frame, False, _HIDDEN):
        frame = frame.f_back
    return frame


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that a traceback shows above it, each once."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _is_hidden(frame: FrameType, models: bool, packages: frozenset[str] | set[str]) -> bool:
    name = f"{frame.f_globals.get('__name__')}"
    if name.startswith("circuits.models."):
        return models
    return name.partition(".")[0] in packages or frame.f_code.co_filename.startswith("<the diagram of ")


def _shortened(
    traceback: TracebackType | None, models: bool, packages: frozenset[str] | set[str]
) -> TracebackType | None:
    """Return a traceback without the frames of some packages."""
    entries: list[TracebackType] = []
    while traceback is not None:
        if not _is_hidden(traceback.tb_frame, models, packages):
            entries.append(traceback)
        traceback = traceback.tb_next
    found: TracebackType | None = None
    for each in reversed(entries):
        found = TracebackType(found, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return found


class _Here(Exception):
    """Raised at a line to obtain a traceback that points at it."""


def _entry_at(frame: FrameType) -> TracebackType | None:
    """Return a traceback of one entry, which shows the expression that a frame is evaluating.

    Its frame is not the given one but runs code with the same name and place, because pytest must hide this entry and
    not the first, and tells them apart by their frames. Jinja makes such entries for the lines of templates.
    """
    code = frame.f_code
    line, end, start, stop = list(code.co_positions())[frame.f_lasti // 2]
    tree = ast.parse("raise error")
    for node in ast.walk(tree):
        vars(node).update(lineno=line or frame.f_lineno, end_lineno=end or line or frame.f_lineno)
        vars(node).update(col_offset=start or 0, end_col_offset=stop or 0)
    pointing: CodeType = compile(tree, code.co_filename, "exec")
    pointing = pointing.replace(co_name=code.co_name, co_qualname=code.co_qualname)
    scope: dict[str, Any] = {"__tracebackhide__": True, "__name__": __name__, "error": _Here()}
    try:
        exec(pointing, scope)
    except _Here as error:
        return error.__traceback__ and error.__traceback__.tb_next
    return None
