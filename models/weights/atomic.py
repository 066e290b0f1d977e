"""Write a file completely or not at all: into a folder beside it, from which it is moved to its place.

The folder is locked while it is used. A process that is killed leaves its folder behind, without a lock, and the next
write to the same file removes it. Where Python has no `fcntl`, nothing is locked and nothing left behind is removed.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuits import CircuitError

try:
    import fcntl
except ImportError:
    fcntl = None


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """In the `with`, write to the yielded path; at its end that file takes the place of `path`, unless it has failed.

    The new file has the permissions of the one that it replaces, or else those of any new file.

    Raises:
        OSError: if the folder of `path` does not exist, or nothing can be created in it.
    """
    _remove_abandoned(path)
    folder, lock = _locked_folder(path)
    try:
        written = folder / "written"
        written.touch()
        mode = (path if path.exists() else written).stat().st_mode & 0o777
        yield written
        written.chmod(mode)
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def refuse_unless_file(path: Path, where: str) -> None:
    """Raise CircuitError, beginning with `where`, if `path` exists and is not a file: opening a pipe would not return.

    A symbolic link to a file is one; a link to itself is not.
    """
    if (path.exists() and not path.is_file()) or Path(os.path.realpath(path)).is_symlink():
        raise CircuitError(f"{where}{path} is not a file but a folder, a pipe or a device, or a link to itself")


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    """Return a new folder beside `path`, and the descriptor that holds its lock."""
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        folder.mkdir()
        if fcntl is None:
            return folder, None
        lock = _lock(folder)
        if lock is not None and folder.exists():
            return folder, lock
        # Another process took the folder for an abandoned one, in the moment before it was locked.
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds the lock of a folder; None if it is locked or gone."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_abandoned(path: Path) -> None:
    """Remove the folders that killed processes left beside `path`: those without a lock."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}")
    try:
        beside = [*path.parent.iterdir()]
    except OSError:
        return
    for folder in beside:
        if name.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
