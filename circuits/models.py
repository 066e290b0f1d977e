"""The models, found beside this package: `from circuits.models import MultiHeadAttention` works in every project.

Many projects have a folder or a file called `models`, and there `from models import ...` finds theirs. This module
loads the folder `models` that was installed beside `circuits`, by its path. The modules in it are called
`circuits.models.attention` and so on, in pickles too. Where nothing hides that folder, `models` is another name for the
same module objects, whichever name was imported first.
"""

import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # pyright follows the path, so that it too finds this folder and no other.
    from ..models import *  # noqa: F403

    # mypy takes what it does not find, and modules such as `circuits.models.layers`, for Any.
    def __getattr__(name: str) -> Any: ...


FOLDER = Path(__file__).parents[1] / "models"


def _load() -> ModuleType:
    """Load the folder as a package in place of this module, and return it.

    Raises:
        ImportError: if the folder is missing, or another distribution has put its own `models` there.
    """
    file = FOLDER / "__init__.py"
    spec = importlib.util.spec_from_file_location(__name__, file, submodule_search_locations=[str(FOLDER)])
    if spec is None or spec.loader is None or not file.is_file():
        raise ImportError(f"circuits.models: {FOLDER} is missing; install neural-circuit-diagrams again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "savable"):
        raise ImportError(
            f"circuits.models: another distribution has put its own models into {FOLDER}; uninstall one of the two,"
            " and install neural-circuit-diagrams again"
        )
    for each in pkgutil.walk_packages(module.__path__, f"{__name__}."):
        importlib.import_module(each.name)
    return module


_load()
