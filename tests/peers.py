"""Other libraries' implementations; a test that needs one that is not installed is skipped."""

import importlib
import importlib.util
from typing import Any

import pytest

import scripts.peers


def peer(name: str) -> Any:
    """Import a package or module; skip the test if it is not installed, fail if it is installed but does not import."""
    _skip_without(name.partition(".")[0])
    return importlib.import_module(name)


def timm() -> Any:
    """The module `timm`, imported with or without torchvision; skip the test if it is not installed."""
    _skip_without("timm")
    return scripts.peers.timm()


def _skip_without(package: str) -> None:
    """Skip the test if a package is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
