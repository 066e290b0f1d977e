"""Folders of images and text files, as examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from scripts.data import WINDOW, split
from scripts.loop import Run
from scripts.options import resolve_config
from scripts.own_data import DataError, grey_images, grey_pictures, pictures, text
from scripts.report import fit
from scripts.tasks import TASKS


def picture(mode: str, colour: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def folder(path: Path, images: dict[str, Image.Image]) -> Path:
    """A folder with an image at each place."""
    for name, image in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(path / name)
    return path


def grey(path: Path) -> Path:
    """Three dark images of one class, and four light ones of another, of two of them in a subfolder."""
    dark = {f"dark/{number}.png": picture("L", 51) for number in range(3)}
    light = {f"light/{name}.png": picture("L", 204) for name in ("a", "b", "more/c", "more/d")}
    return folder(path, dark | light)


# --- Images -----------------------------------------------------------------------------------------------------------


def test_classes_are_the_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    (grey(tmp_path) / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("of the photographer")
    (tmp_path / "light" / "notes.txt").write_text("of the photographer")
    found = pictures(tmp_path, 4)
    assert found.names == ("dark", "light")
    assert found.classes == 2
    assert found.targets.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found.inputs.shape == (7, 1, 4, 4)
    torch.testing.assert_close(found.inputs[:, 0, 0, 0], torch.tensor([0.2] * 3 + [0.8] * 4))
    assert torch.equal(found.sources, torch.arange(7))
    assert torch.equal(grey_images(tmp_path, 4).inputs, found.inputs[:, 0])


def test_colours_are_kept_where_the_model_takes_them(tmp_path: Path) -> None:
    red = folder(grey(tmp_path), {"red/1.png": picture("RGB", (255, 0, 51))})
    found = pictures(red, 8)
    assert found.inputs.shape == (8, 3, 8, 8)
    torch.testing.assert_close(found.inputs[-1, :, 2, 5], torch.tensor([1.0, 0.0, 0.2]))
    torch.testing.assert_close(found.inputs[0, :, 2, 5], torch.full((3,), 0.2))
    luminance = (0.299 * 255 + 0.114 * 51) / 255
    torch.testing.assert_close(
        grey_pictures(red, 8).inputs[-1], torch.full((1, 8, 8), luminance), atol=1 / 255, rtol=0
    )  # rounded to 8 bits


def test_images_of_any_shape_are_cropped_in_the_middle(tmp_path: Path) -> None:
    wide = Image.new("L", (24, 8), 0)
    wide.paste(255, (8, 0, 16, 8))
    found = pictures(folder(grey(tmp_path), {"light/wide.png": wide}), 8)
    assert found.inputs[-1].min() == 1


def test_rows_and_columns_are_not_exchanged_and_a_turned_photograph_is_turned(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 2))  # the two rows at the top
    exif = Image.Exif()
    exif[274] = 6  # shown turned by a quarter, clockwise: the top is on the right
    grey(tmp_path)
    image.save(tmp_path / "light" / "y.png")
    image.save(tmp_path / "light" / "z.png", exif=exif)
    plain, turned = pictures(tmp_path, 8).inputs[-2:, 0]
    assert (plain[:2] == 1).all()
    assert (plain[2:] == 0).all()
    assert (turned[:, -2:] == 1).all()
    assert (turned[:, :-2] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: folder(path, {"dark/x.png": picture("I;16", 60000)}), r"x\.png has pixels of more than 8 bits"),
        (lambda path: (path / "dark" / "x.jpg").write_bytes(b"no image"), r"x\.jpg cannot be read as an image"),
        (lambda path: (path / "empty").mkdir(), "with images in each; empty has none"),
        (lambda path: [each.unlink() for each in (path / "dark").iterdir()], "dark has none"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    change(grey(tmp_path))
    with pytest.raises(DataError, match=words):
        pictures(tmp_path, 8)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two folders, one for each class"):
        pictures(folder(tmp_path, {"1.png": picture("L", 0)}), 8)
    with pytest.raises(DataError, match="is not a folder"):
        pictures(tmp_path / "1.png", 8)
    with pytest.raises(DataError, match="has 2 images"):
        pictures(folder(tmp_path / "few", {"a/1.png": picture("L", 0), "b/1.png": picture("L", 0)}), 8)


# --- Text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5 * 257, 20 * 257 + 13, 30_000])
def test_a_text_is_cut_into_windows_that_no_two_splits_share(tmp_path: Path, count: int) -> None:
    """Each character of this text is another, so that it says where it is from."""
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(0x4E00 + number) for number in range(count)), encoding="utf-8")
    found = text(path)
    assert found.classes == len(found.names) == count
    assert torch.equal(found.inputs[:, 1:], found.targets[:, :-1])
    assert found.inputs.shape[1] == WINDOW
    assert torch.equal(found.targets, found.inputs + 1)
    splits = split(found.sources, 0)
    held = [{*found.inputs[part].flatten().tolist(), *found.targets[part].flatten().tolist()} for part in splits]
    assert all(held)
    assert len(set().union(*held)) == sum(map(len, held))
    assert sum(map(len, held)) > 0.8 * count


def test_a_text_that_is_short_or_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("x" * (5 * 257 - 1))
    with pytest.raises(DataError, match="has 1284 characters; training, validation and test need at least 1285"):
        text(path)
    path.write_bytes(b"\xff" * 2000)
    with pytest.raises(DataError, match="is not text in UTF-8"):
        text(path)
    with pytest.raises(DataError, match="is not a file"):
        text(tmp_path)


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.every(5)
@pytest.mark.parametrize("name", ["mlp", "resnet", "vision_transformer", "visual_attention", "conv_attention"])
def test_each_classifier_trains_on_a_folder(name: str, tmp_path: Path) -> None:
    data = folder(grey(tmp_path / "data"), {"light/red.png": picture("RGB", (255, 0, 0))})
    asked = {"task": name, "data": f"{data}", "epochs": 1, "batch_size": 3, "device": "cpu"}
    run = Run(resolve_config(asked, None), tmp_path / "run", resume=False)
    assert run.examples.inputs.shape[1:] == {"resnet": (3, 28, 28), "vision_transformer": (3, 28, 28)}.get(
        name, (1, 28, 28) if name == "visual_attention" else (28, 28)
    )
    assert fit(run, Console(quiet=True)) >= 0
    assert (tmp_path / "run" / "names.json").read_text() == '["dark", "light"]'


@pytest.mark.slow
def test_a_language_model_trains_on_a_text_and_is_resumed_with_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, " * 100)
    monkeypatch.chdir(tmp_path)
    asked = {"task": "language_model", "data": "text.txt", "epochs": 1, "device": "cpu"}
    run = Run(resolve_config(asked, None), tmp_path / "run", resume=False)
    fit(run, Console(quiet=True))
    assert run.config.data == f"{path}"
    monkeypatch.chdir("/")
    assert Run(resolve_config({}, run.record), tmp_path / "run", resume=True).record == run.record
    path.write_text("to be or not to bee " * 100)
    with pytest.raises(ValueError, match="have changed since the run there began"):
        Run(resolve_config({}, run.record), tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", ["unet", "sequence_to_sequence"])
def test_other_tasks_read_no_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reads no files; its data are"):
        TASKS[name].examples(f"{tmp_path}", 28)
