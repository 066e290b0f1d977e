"""`Drawing`: its files, written completely or not at all, its errors whole, and what a notebook shows."""

import base64
import os
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from circuits.drawing.drawing import Drawing
from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.terminal import terminal
from circuits.drawing.ink.tikz import tikz
from circuits.drawing.marks import Path as Stroke
from circuits.drawing.marks import Picture, Span, Text
from circuits.errors import CircuitError
from tests.drawing.samples import sample


def message(path: Path | str, drawing: Drawing | None = None, **arguments: float) -> str:
    with pytest.raises(CircuitError) as caught:
        (drawing or Drawing(sample())).save(path, **arguments)
    return str(caught.value)


def test_texts_are_those_of_the_inks() -> None:
    drawing = Drawing(sample(), "dark")
    assert drawing.svg == svg(sample(), "dark") == drawing._repr_svg_()
    assert drawing.tikz == tikz(sample(), "dark")
    assert drawing.text() == terminal(sample(), 100)
    assert drawing.text(None) == terminal(sample(), None)
    assert drawing.text(60, "ascii") == terminal(sample(), 60, "ascii")
    assert repr(drawing) == "Drawing(540 x 380, theme='dark')"
    assert Drawing(sample()) == Drawing(sample(), "light") != drawing


def test_a_notebook_that_is_not_trusted_shows_the_picture_as_an_image() -> None:
    drawing = Drawing(replace(sample(), title='a "<b>'))
    (image,) = ElementTree.fromstring(f"<p>{drawing._repr_html_().removesuffix('>')}/></p>")
    assert (image.tag, image.get("alt")) == ("img", 'a "<b>')
    kind, _, data = str(image.get("src")).partition(",")
    assert (kind, base64.b64decode(data).decode()) == ("data:image/svg+xml;base64", drawing.svg)


def test_an_unknown_theme_is_refused() -> None:
    with pytest.raises(CircuitError) as caught:
        Drawing(sample(), "sepia")
    assert str(caught.value) == "theme is 'sepia'; the themes are 'light', 'dark', 'print'"


# --- Files ------------------------------------------------------------------------------------------------------------


def test_text_files_have_the_texts(tmp_path: Path) -> None:
    drawing = Drawing(sample(), "print")
    drawing.save(tmp_path / "a.svg")
    drawing.save(os.fspath(tmp_path / "a.tex"))
    assert (tmp_path / "a.svg").read_bytes() == drawing.svg.encode()
    assert (tmp_path / "a.tex").read_bytes() == drawing.tikz.encode()
    drawing.save(tmp_path / "b.SVG", scale=1.5)
    assert 'viewBox="0 0 540 380" width="810" height="570"' in (tmp_path / "b.SVG").read_text()
    drawing.save(tmp_path / "b.tex", scale=2)
    assert "paperwidth=810bp,paperheight=570bp" in (tmp_path / "b.tex").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "a.tex", "b.SVG", "b.tex"]


@pytest.mark.parametrize(("scale", "size"), [(1, (540, 380)), (2.5, (1350, 950)), (0.01, (5, 4)), (0.001, (1, 1))])
def test_a_png_has_the_pixels_of_its_scale(scale: float, size: tuple[int, int], tmp_path: Path) -> None:
    Drawing(sample()).save(tmp_path / "a.png", scale=scale)
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == size


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("x", [20.37, 20.5, 20.81])
def test_no_seam_shows_where_a_wire_goes_on_as_another(x: float, double: bool, tmp_path: Path) -> None:
    """Two level lines that meet between pixels are as dark there as elsewhere."""
    marks = (Stroke((4, 12.2), ((x, 12.2),), double=double), Stroke((x, 12.2), ((40, 12.2),), double=double))
    for scale in (1, 2, 3):
        Drawing(Picture(44, 24, marks), "print").save(tmp_path / "seam.png", scale=scale)
        dark = 255 - np.asarray(Image.open(tmp_path / "seam.png").convert("L")).astype(int)
        columns = dark.sum(axis=0)[8 * scale : 36 * scale]
        assert columns.min() >= columns[: 2 * scale].max() - 2


@pytest.mark.parametrize("wide", [40, 40.3, 40.98])
@pytest.mark.parametrize(("high", "scale"), [(600, 1), (600.17, 3), (600.5, 2), (600.96, 1.37)])
def test_no_row_of_pixels_is_lost(wide: float, high: float, scale: float, tmp_path: Path) -> None:
    """Level lines are equally dark at every height, but for one of the four samples in which a pixel is drawn."""
    heights = range(10, 600, 10)
    lines = tuple([Stroke((4, y), ((36, y),)) for y in heights])
    Drawing(Picture(wide, high, lines), "print").save(tmp_path / "rows.png", scale=scale)
    column = 255 - np.asarray(Image.open(tmp_path / "rows.png").convert("L")).astype(int)[:, int(20 * scale)]
    ink = [column[int((y - 5) * scale) : int((y + 5) * scale)].sum() for y in heights]
    assert max(ink) - min(ink) <= 66


def test_a_root_stands_on_the_line(tmp_path: Path) -> None:
    Drawing(Picture(40, 60, (Text(10, 30, (Span("√"),), 20),)), "print").save(tmp_path / "root.png", scale=4)
    dark = np.asarray(Image.open(tmp_path / "root.png").convert("L")) < 128
    rows = np.flatnonzero(dark.any(axis=1)) / 4
    assert 10 < rows[0] < 20
    assert 28 < rows[-1] < 35


def test_png_and_pdf_show_the_picture(tmp_path: Path) -> None:
    Drawing(sample(), "dark").save(tmp_path / "a.png", scale=2)
    image = Image.open(tmp_path / "a.png").convert("RGB")
    assert image.getpixel((2, 2)) == (0x14, 0x16, 0x1A)
    pixel = image.getpixel((60, 140))
    assert isinstance(pixel, tuple)
    assert min(pixel) > 0xE0, "the first wire"
    for path in ("a.pdf", "b.pdf"):
        Drawing(sample()).save(tmp_path / path, scale=2)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert re.search(rb"/MediaBox ?\[ ?0 0 810 570 ?\]", content)
    assert content == (tmp_path / "b.pdf").read_bytes()


def test_a_character_without_a_glyph_is_seen(tmp_path: Path) -> None:
    def drawn(text: str) -> bytes:
        Drawing(Picture(60, 30, (Text(5, 20, (Span(text),)),))).save(tmp_path / "a.png")
        return (tmp_path / "a.png").read_bytes()

    assert drawn("a\U0010fffd") == drawn("a□") != drawn("a")
    assert len({drawn(text) for text in ("★", "λ", "x", "□", "𝔼")}) == 5


def test_a_file_is_replaced_or_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link = tmp_path / "a.svg", tmp_path / "link.svg"
    target.write_text("before")
    target.chmod(0o640)
    link.symlink_to(target)
    Drawing(sample()).save(link)
    assert link.is_symlink()
    assert target.read_text() == Drawing(sample()).svg
    assert target.stat().st_mode & 0o777 == 0o640

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        Drawing(sample(), "dark").save(target)
    assert target.read_text() == Drawing(sample()).svg
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "link.svg"]


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svg.gz", ".svg"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert message(path) == f"{path} has none of the suffixes of a drawing: .svg, .tex, .pdf, .png"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "2", True])
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_scale_is_a_number_above_zero(suffix: str, scale: float, tmp_path: Path) -> None:
    expected = f"scale is {scale!r}; it is a number above zero, for example 2"
    assert message(tmp_path / f"a.{suffix}", scale=scale) == expected


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.svg").mkdir()
    assert message(tmp_path / "a.svg") == f"{tmp_path / 'a.svg'} is a folder"
    missing = tmp_path / "none" / "a.svg"
    assert message(missing) == f"{missing}: there is no folder {tmp_path / 'none'}"


def test_too_many_pixels(tmp_path: Path) -> None:
    assert message(tmp_path / "a.png", scale=100) == (
        "a PNG of 54000 x 38000 pixels is too large: pass a smaller scale, or write an SVG or a PDF"
    )


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_without_the_extra_one_line_says_what_to_install(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    expected = "PNG and PDF files need the package typst: pip install 'neural-circuit-diagrams[drawing]'"
    assert message(tmp_path / f"a.{suffix}") == expected
    assert not list(tmp_path.iterdir())
    Drawing(sample()).save(tmp_path / "a.svg")
