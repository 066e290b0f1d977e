"""Other people's implementations, imported where they are installed; a test that asks for an absent one is skipped."""

import importlib
import importlib.util
from typing import Any

import pytest

import scripts.peers


def peer(name: str) -> Any:
    """A package by name, or what is in it; one that is installed and does not import is an error."""
    _skip_without(name.partition(".")[0])
    return importlib.import_module(name)


def timm() -> Any:
    """timm, with or without torchvision."""
    _skip_without("timm")
    return scripts.peers.timm()


def _skip_without(package: str) -> None:
    """Skip the test that asks for a package which is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
