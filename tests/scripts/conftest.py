"""What all tests of the scripts share."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_tensorboard() -> Iterator[None]:
    """A run writes for TensorBoard where it is installed; these tests are of the files of a run without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        yield
