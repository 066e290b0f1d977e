"""Find the line of user code that is running, and the call in that line.

Source: Python's stack frames, which also have column numbers since Python 3.11.
"""

import dis
import linecache
import re
import sys
import types

import einops
import torch

from circuits import errors

_LIBRARY_FOLDERS = tuple([f"{module.__file__}".rpartition("/")[0] for module in (torch, einops, errors)])


def user_line() -> str:
    """Return the line of user code that is running, as `model.py:12`; empty if no frame is in user code."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def user_frame() -> types.FrameType | None:
    """Return the innermost frame in user code, or None."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_user_file(name):
            return frame
        frame = frame.f_back
    return None


def is_user_file(name: str) -> bool:
    """Return whether a file is user code: not in torch, einops or this package, not `contextlib`, and not generated."""
    return not name.startswith((*_LIBRARY_FOLDERS, "<")) and not name.endswith("/contextlib.py")


def current_call() -> tuple[str, str]:
    """Return the call in user code that is running, and the line as `model.py:12`.

    The call is the name of the function that is called (`math.sqrt`), or the source text of an expression that is not a
    call of a name; it is empty if the expression spans several lines or the source is not available.
    """
    frame = user_frame()
    if frame is None:
        return "", ""
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    line, end, start, stop = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    source = linecache.getline(frame.f_code.co_filename, line or 0)
    if line is None or line != end or not source:
        return "", where
    text = source.encode()[start:stop].decode(errors="replace")
    called = re.match(r"[\w.]+(?=\()", text)
    return (called[0] if called else text), where


_FOR_READERS = re.compile(r"\s*(print|warnings\.warn|(self\.)?_?log(ger|ging)?(\.\w+)+)\(")
"""The beginning of a line of code that writes a text for readers."""


def is_for_readers(frame: types.FrameType) -> bool:
    """Return whether the code of a frame is writing a text that it only prints, logs, or raises an exception with."""
    if _FOR_READERS.match(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
        return True
    rest = (each.opname for each in dis.get_instructions(frame.f_code) if each.offset > frame.f_lasti)
    ending = next((name for name in rest if name.startswith(("RAISE", "RETURN", "STORE", "POP"))), "")
    return ending == "RAISE_VARARGS"
