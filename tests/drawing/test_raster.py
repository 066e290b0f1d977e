"""TikZ compiled by a real LaTeX, where there is one, and compared with the SVG, pixel by pixel.

Strokes are at most two pixels apart, and each text fills the same box.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from circuits.drawing.drawing import Drawing
from circuits.drawing.marks import Mark, Picture, Span, Text
from circuits.drawing.widths import CHARACTERS, width
from tests.drawing.samples import sample

Pixels = Any
"""An array of height x width x 3."""

SCALE = 3
ENGINES = ("pdflatex", "lualatex")
TEXTS: tuple[Mark, ...] = (
    Text(20, 40, (Span("Linear", "sans"),)),
    Text(270, 40, (Span("Scaled Dot-Product", "sans"),), 14, "middle"),
    Text(520, 40, (Span("k"), Span("−1/2", shift="sup")), 18, "end"),
    Text(20, 90, (Span("L", "bold"), Span("Q", shift="sup"), Span("+", "upright", "sub")), 24),
    Text(270, 90, (Span("x", "bold", over=True), Span("5−λ", shift="sub")), 15, "middle"),
    Text(520, 90, (Span("★3 Max", "upright"),), 15, "end"),
    Text(20, 140, (Span("𝔼[x′] ≤ 10² × ∂ √ ∞"),), 20),
    Text(20, 190, (Span(r"100% \x{y} #1 $a_b^c$ ~ &", "upright"),), 16),
    Text(20, 240, (Span("<script>", "sans"), Span(" é ñ ß", "bold")), 16),
    Text(20, 290, (Span("λη Ωμε", "bold"), Span("λη Ωμε"), Span("λη Ωμε", "sans")), 16),
)
"""Texts in boxes that do not overlap."""

pytestmark = pytest.mark.slow


def compiled(picture: Picture, folder: Path, engine: str) -> Path:
    """The PDF of a picture."""
    if not shutil.which(engine) or not shutil.which("pdftoppm"):
        pytest.skip(f"there is no {engine} or no pdftoppm")
    Drawing(picture).save(folder / "a.tex")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "(1 page," in run.stdout
    assert "Overfull" not in run.stdout
    return folder / "a.pdf"


def raster(pdf: Path) -> Pixels:
    """The pixels of a PDF."""
    dots = 96 * SCALE
    subprocess.run(["pdftoppm", "-png", "-r", f"{dots}", "-singlefile", pdf, pdf.with_suffix("")], check=True)
    return np.asarray(Image.open(pdf.with_suffix(".png")).convert("RGB")).astype(int)


def both(picture: Picture, folder: Path, engine: str) -> tuple[Pixels, Pixels]:
    """The pixels of the TikZ and of the SVG of a picture."""
    tex = raster(compiled(picture, folder, engine))
    Drawing(picture).save(folder / "b.png", scale=SCALE)
    other = np.asarray(Image.open(folder / "b.png").convert("RGB")).astype(int)
    assert tex.shape == other.shape
    return tex, other


def far(some: Pixels, others: Pixels, reach: int) -> int:
    """How many pixels of one image have no pixel of about their colour in the other, up to so many pixels away.

    Half of the way from black to white is allowed, since only one of the two programs smooths level lines.
    """
    rows, columns = np.nonzero(np.abs(some - others).max(axis=2) > 130)
    padded = np.pad(others, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    best = np.full(len(rows), 999)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            near = padded[rows + down, columns + right]
            best = np.minimum(best, np.abs(some[rows, columns] - near).max(axis=1))
    return int((best > 130).sum())


def without_texts(picture: Picture) -> Picture:
    return replace(picture, marks=tuple(mark for mark in picture.marks if not isinstance(mark, Text)))


@pytest.mark.parametrize("engine", ENGINES)
def test_strokes_are_at_most_two_pixels_apart(engine: str, tmp_path: Path) -> None:
    tex, other = both(without_texts(sample()), tmp_path, engine)
    assert far(tex, other, 2 * SCALE) == far(other, tex, 2 * SCALE) == 0
    moved = np.roll(tex, 4 * SCALE, axis=0)
    assert far(moved, other, 2 * SCALE) > 100, "four pixels are seen"


def boxes(pixels: Pixels, texts: Sequence[Mark]) -> list[tuple[float, float, float, float]]:
    """The left, upper, right and lower end of what is drawn near each text."""
    found = []
    dark = pixels.sum(axis=2) < 500
    for mark in texts:
        assert isinstance(mark, Text)
        top, bottom = int((mark.y - 1.3 * mark.size) * SCALE), int((mark.y + 0.6 * mark.size) * SCALE)
        wide = width(mark.spans, mark.size)
        left = mark.x - wide * {"start": 0, "middle": 0.5, "end": 1}[mark.anchor]
        part = dark[top:bottom, max(int((left - 8) * SCALE), 0) : int((left + wide + 8) * SCALE)]
        rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        start = max(int((left - 8) * SCALE), 0)
        place = (columns[0] + start, rows[0] + top, columns[-1] + start, rows[-1] + top)
        found.append(tuple(float(end) / SCALE for end in place))
        dark[top:bottom, max(int((left - 8) * SCALE), 0) : int((left + wide + 8) * SCALE)] = False
    assert not dark.any(), "something is drawn far from the texts"
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_texts_fill_the_same_boxes(engine: str, tmp_path: Path) -> None:
    """Within two pixels sideways, as the width is set; within a fifth of their size upward, as fonts differ."""
    tex, other = both(Picture(540, 320, TEXTS), tmp_path, engine)
    for mark, one, two in zip(TEXTS, boxes(tex, TEXTS), boxes(other, TEXTS), strict=True):
        assert isinstance(mark, Text)
        for side in (0, 2):
            assert abs(one[side] - two[side]) <= 2.5, (mark.plain, one, two)
        for side in (1, 3):
            assert abs(one[side] - two[side]) <= 0.25 * mark.size, (mark.plain, one, two)
        wide = width(mark.spans, mark.size)
        left = mark.x - wide * {"start": 0, "middle": 0.5, "end": 1}[mark.anchor]
        for box in (one, two):
            assert left - 2.5 <= box[0] <= box[2] <= left + wide + 2.5, (mark.plain, box)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_name_compiles(engine: str, tmp_path: Path) -> None:
    """All ASCII characters, those of the tables, and words that are commands or control characters, in every style."""
    names = ["".join(map(chr, range(32, 127))), CHARACTERS[95:], "\\end{document}", "\\input{/etc/passwd}", "^^41^^5c"]
    names += [
        "注意 🙂 \u202e abc",
        "\x00\x1b\x7f\r\n\t",
        "%",
        "\\",
        "{",
        "}",
        "$$",
        "# ## #1",
        "--- ``''",
        "e\u0301\u0302",
    ]
    names += ["\u0301", " ", "", "⁰₁½ﬁ𝐱𝔼ℝℓ", "‴′·×−…∂Σ→★√∞≤≥"]
    spans = [
        span for name in names for span in (Span(name), Span(name, "bold"), Span(name, "upright"), Span(name, "sans"))
    ]
    marks = [
        Text(5, 20 + 20 * row, (replace(span, shift="sup", over=True), span), 12) for row, span in enumerate(spans)
    ]
    compiled(Picture(2500, 20 * len(marks) + 40, tuple(marks), "\\end{document} % \x00"), tmp_path, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wide_picture_compiles(engine: str, tmp_path: Path) -> None:
    marks = without_texts(sample()).marks
    compiled(Picture(60_000, 400, marks), tmp_path, engine)
