"""Other people's implementations, to compare ours with; ImportError where one is not installed.

timm imports torchvision, which has no build for CPU here. It uses one class of it and some names for loading images,
none of which a model needs: while timm is being imported, empty modules stand in for torchvision, and then they go.
"""

import functools
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any
from unittest import mock

from torch import nn


class FrozenBatchNorm2d(nn.Module):
    """What timm looks for in models, and finds in none of those here."""


@functools.cache
def timm() -> Any:
    """timm, with or without torchvision."""
    if importlib.util.find_spec("torchvision") is None and importlib.util.find_spec("timm") is not None:
        with mock.patch.dict(sys.modules):
            sys.modules.update(_torchvision())
            importlib.import_module("timm")
            found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] != "torchvision"}
        sys.modules.update(found)
    return importlib.import_module("timm")


def _torchvision() -> dict[str, ModuleType]:
    """Modules that have every name."""
    names = ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".datasets.utils")
    modules: dict[str, Any] = {f"torchvision{name}": mock.MagicMock(__spec__=None) for name in names}
    modules["torchvision.ops.misc"].FrozenBatchNorm2d = FrozenBatchNorm2d
    return modules
