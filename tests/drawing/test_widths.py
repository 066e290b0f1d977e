"""Widths of text: the tables against the AFM files that matplotlib ships, and the characters outside them."""

import re
import unicodedata
from pathlib import Path

import matplotlib
import pytest
from fontTools.agl import toUnicode
from hypothesis import given
from hypothesis import strategies as st

from circuits.drawing.marks import Span
from circuits.drawing.widths import SMALL, line, runs, visible, width

AFM = Path(matplotlib.get_data_path()) / "fonts" / "afm"
FONTS = {"italic": "ptmri8a", "bold": "ptmb8a", "upright": "ptmr8a", "sans": "phvr8a"}
OTHERS = "ìíîï¹²³"
"""These have the width of their base letter, as in Times, or one width in every style."""


def afm(name: str) -> dict[str, int]:
    """The widths of the characters of an AFM file."""
    text = (AFM / f"{name}.afm").read_text(encoding="latin-1")
    glyphs = re.findall(r"^C .*?WX (\d+) ; N (\w+) ;", text, re.MULTILINE)
    return {toUnicode(glyph): int(wide) for wide, glyph in glyphs if len(toUnicode(glyph)) == 1}


@pytest.mark.parametrize("style", FONTS)
def test_the_tables_are_those_of_the_fonts(style: str) -> None:
    font = afm(FONTS[style])
    composed = {letter: wide for letter, wide in font.items() if letter not in OTHERS and ord(letter) < 0x250}
    assert len(composed) > 185
    wrong = {letter: wide for letter, wide in composed.items() if width([Span(letter, style)], 1000) != wide}  # type: ignore[arg-type]
    assert not wrong


def test_small_letters_and_stacks() -> None:
    assert width([Span("m", shift="sub")], 10) == pytest.approx(SMALL * width([Span("m")], 10), abs=1e-3)
    pair = [Span("L", "bold"), Span("Q", shift="sup"), Span("+", "upright", "sub")]
    assert width(pair, 10) == max(width(pair[:2], 10), width([pair[0], pair[2]], 10))
    under = [place.x for place in line([*pair, Span("x")], 10)]
    assert under[1] == under[2] < under[3]
    assert under[3] == pytest.approx(width(pair, 10), abs=1e-3)
    low, high = (place.rise for place in list(line(pair, 10))[:0:-1])
    assert low < 0 < high


def test_characters_outside_the_tables_have_room() -> None:
    assert width([Span("注意")], 10) == 20
    assert width([Span("🙂")], 10) == 10
    assert width([Span("é")], 10) == width([Span("e\u0301")], 10) == width([Span("e")], 10)
    for letter in "𝔼→★∞≤√Σλη′Ж﷽\u2063":
        wide = width([Span(letter)], 10)
        assert 0 < wide <= 12 or letter == "\u2063", letter


def test_what_is_no_character_is_seen() -> None:
    assert visible("a\nb\r\tc") == "a b  c"
    for letter in "\x00\x1b\x7f\x85\ud800\ufffe\uffff\U0001ffff\u202e\u2066":
        assert visible(f"a{letter}b") == "a�b", ascii(letter)
    assert visible("注é 𝔼\u0301\u200d") == "注é 𝔼\u0301\u200d"


@given(st.text(), st.sampled_from(list(FONTS)))
def test_widths_add_up(text: str, style: str) -> None:
    span = Span(text, style)  # type: ignore[arg-type]
    (place,) = line([span], 12)
    parts = list(runs(place))
    assert "".join(part.text for _, part in parts) == place.text == visible(text)
    assert sum(part.width for _, part in parts) == pytest.approx(place.width)
    ends = [part.x + part.width for _, part in parts]
    assert ends[:-1] == pytest.approx([part.x for _, part in parts[1:]])
    assert width([span], 12) >= 0
    assert width([span], 24) == pytest.approx(2 * width([span], 12), abs=2e-3)


def test_runs_are_of_one_script() -> None:
    (place,) = line([Span("aé λ₂→★√ Жй注b")], 10)
    assert [(script, part.text) for script, part in runs(place)] == [
        ("latin", "aé "),
        ("greek", "λ"),
        ("symbol", "₂→★"),
        ("root", "√"),
        ("latin", " "),
        ("other", "Жй注"),
        ("latin", "b"),
    ]
    assert unicodedata.combining("\u0301")
    (place,) = line([Span("λ\u0301a")], 10)
    assert [part.text for _, part in runs(place)] == ["λ\u0301", "a"]
