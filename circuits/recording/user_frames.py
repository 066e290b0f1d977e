"""Which line of the user's own code is running.

Source: Python's frames; since 3.11 they know their columns too.
"""

import linecache
import re
import sys
import types

import einops
import torch

from circuits import errors

_NOT_THE_USERS = tuple([f"{module.__file__}".rpartition("/")[0] for module in (torch, einops, errors)])


def caller() -> str:
    """The line of the caller's own code that is running: `model.py:12`; empty if all is ours or torch's."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def user_frame() -> types.FrameType | None:
    """The innermost frame outside torch, einops and this package."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            return frame
        frame = frame.f_back
    return None


def is_users(name: str) -> bool:
    """Whether a file is the user's own: not torch's, einops', Python's or ours, nor made up at run time."""
    return not name.startswith((*_NOT_THE_USERS, "<")) and not name.endswith("/contextlib.py")


def asker() -> tuple[str, str]:
    """The call on the user's own line that is running now, as it is written there, and the line's place."""
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
