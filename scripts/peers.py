"""Other libraries' implementations for comparisons; ImportError if one is not installed.

timm imports torchvision, which may have no CPU build. It uses one class of it and some functions that load images, none
of which a model needs: if torchvision is missing, empty modules replace it while timm is imported.
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
    """The one torchvision class that timm compares modules with; no model here contains it."""


@functools.cache
def timm() -> Any:
    """The module `timm`, imported with or without torchvision."""
    if importlib.util.find_spec("torchvision") is None and importlib.util.find_spec("timm") is not None:
        with mock.patch.dict(sys.modules):
            sys.modules.update(_torchvision())
            importlib.import_module("timm")
            found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] != "torchvision"}
        sys.modules.update(found)
    return importlib.import_module("timm")


def _torchvision() -> dict[str, ModuleType]:
    """Mock modules of torchvision, in which every name exists."""
    names = ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".datasets.utils")
    modules: dict[str, Any] = {f"torchvision{name}": mock.MagicMock(__spec__=None) for name in names}
    modules["torchvision.ops.misc"].FrozenBatchNorm2d = FrozenBatchNorm2d
    return modules
