"""Examples from files of the user: a folder of images, one subfolder for each class, or a text file.

All examples are in memory. Images are read as torchvision's ImageFolder reads them: in grey or as RGB, without an
alpha channel, the classes in the order of their names. They are scaled, and cropped in the middle, to squares of one
size.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scripts.data import WINDOW, Examples, package

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

LEAST = 5
"""The least number of sources: one for the validation split, one for the test split, three for training."""

BLOCKS = 20
"""A text is divided into this many blocks, and whole blocks into splits."""


class DataError(ValueError):
    """Files of the user cannot be read as examples."""


def pictures(folder: Path, size: int) -> Examples:
    """Images of c by h by w with values from 0 to 1: c is 3, or 1 if no image has colours."""
    return _images(folder, size, lambda modes: "L" if {*modes} <= {"1", "L"} else "RGB")


def grey_pictures(folder: Path, size: int) -> Examples:
    """Images of 1 by h by w with values from 0 to 1; colours are converted to grey."""
    return _images(folder, size, lambda modes: "L")


def grey_images(folder: Path, size: int) -> Examples:
    """Images of h by w with values from 0 to 1; colours are converted to grey."""
    examples = grey_pictures(folder, size)
    return replace(examples, inputs=examples.inputs[:, 0])


def _images(folder: Path, size: int, choose: Callable[[list[str]], str]) -> Examples:
    """All images in a folder; `choose` returns the mode to convert them to from the modes that they have."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder, and this task takes a folder with a folder of images for each class"
        )
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    files = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    empty = {*range(len(classes))} - {number for _, number in files}
    if len(classes) < 2 or empty:
        lacking = f"; {classes[min(empty)]} has none" if empty else ""
        raise DataError(f"{folder} needs at least two folders, one for each class, with images in each{lacking}")
    if len(files) < LEAST:
        raise DataError(f"{folder} has {len(files)} images; training, validation and test need at least {LEAST}")
    mode = choose([_read(path, lambda image: image.mode) for path, _ in files])
    fit = package("PIL.ImageOps", needs="pillow", what="the reader of images").fit
    raw = [_read(path, lambda image: fit(image.convert(mode), (size, size)).tobytes()) for path, _ in files]
    pixels = torch.frombuffer(bytearray(b"".join(raw)), dtype=torch.uint8).view(len(files), size, size, len(mode))
    inputs = pixels.movedim(-1, 1).float().contiguous() / 255
    targets = torch.tensor([number for _, number in files])
    return Examples(f"{folder}", inputs, targets, len(classes), torch.arange(len(files)), (*classes,))


def _read(path: Path, use: Callable[[Any], Any]) -> Any:
    """The result of `use` for an image, turned as its metadata say.

    Raises DataError if the image cannot be read, or has more than 8 bits.
    """
    pillow = package("PIL.Image", needs="pillow", what="the reader of images")
    operations = package("PIL.ImageOps", needs="pillow", what="the reader of images")
    try:
        with pillow.open(path) as image:
            mode = image.mode
            if mode[0] not in "IF":
                return use(operations.exif_transpose(image))
    except Exception as error:  # readers of many formats raise many kinds of errors
        raise DataError(f"{path} cannot be read as an image: {error!r:.200}") from error
    raise DataError(f"{path} has pixels of more than 8 bits (mode {mode}), which a conversion would cut off")


def text(path: Path, _: int = 0) -> Examples:
    """Windows of 257 characters of a text file in UTF-8; the inputs are the first 256 characters, the targets the last.

    Consecutive windows of a block share one character; windows of different blocks share none.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file, and this task takes a text file")
    try:
        characters = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error
    least = LEAST * (WINDOW + 1)
    if len(characters) < least:
        raise DataError(f"{path} has {len(characters)} characters; training, validation and test need at least {least}")
    names = sorted({*characters})
    numbers = {character: number for number, character in enumerate(names)}
    tokens = torch.tensor([numbers[character] for character in characters])
    blocks = min(BLOCKS, len(tokens) // (WINDOW + 1))
    windows = [block.unfold(0, WINDOW + 1, WINDOW) for block in tokens.tensor_split(blocks)]
    sources = torch.arange(blocks).repeat_interleave(torch.tensor([len(each) for each in windows]))
    found = torch.cat(windows)
    return Examples(f"{path}", found[:, :-1], found[:, 1:], len(names), sources, (*names,))
