"""The comparison of golden drawings: each planted defect is reported as what it is, and nothing else is."""

import pathlib
from typing import Any

import pytest

from circuits import Drawing
from circuits.drawing.ink.svg import svg
from circuits.drawing.ink.tikz import tikz
from circuits.drawing.marks import Circle, Path, Picture, Span, Text
from tests import conftest
from tests.svg_differences import MOST, differences, report


def wire(y: float, value: int, axis: int, name: str) -> Path:
    data = (("kind", "wire"), ("value", f"{value}"), ("axis", f"{axis}"), ("name", name))
    return Path((0, y), ((48, y),), data=data)


def label(y: float, value: int, axis: int, name: str, *, over: bool = False) -> Text:
    data = (("kind", "label"), ("value", f"{value}"), ("axis", f"{axis}"))
    return Text(4, y - 4, (Span(name, over=over),), data=data)


MARKS = (
    wire(24, 0, 0, "y"),
    label(24, 0, 0, "y", over=True),
    wire(48, 0, 1, "k"),
    label(48, 0, 1, "k"),
    Circle(48, 48, 4, fill="ink", stroke="", data=(("kind", "dot"), ("box", "2"))),
    Circle(48, 24, 4, fill="ink", stroke="", data=(("kind", "dot"), ("box", "2"))),
)


def drawn(*marks: Path | Text | Circle, width: float = 96, theme: str = "light") -> str:
    return svg(Picture(width, 72, marks or MARKS, "two wires"), theme)


def test_the_same_bytes_do_not_differ() -> None:
    assert differences(drawn(), drawn()) == []
    assert report(drawn(), drawn()) == ""


DEFECTS = {
    "moved": (
        (wire(30, 0, 0, "y"), *MARKS[1:]),
        "moved: wire axis=0 name=y value=0: path d was M0 24L48 24, is M0 30L",
    ),
    "moved label": (
        (MARKS[0], label(30, 0, 0, "y", over=True), *MARKS[2:]),
        "moved: label 'y' axis=0 value=0: text y was 20, is 26; path d was ",
    ),
    "other text": (
        (*MARKS[:3], label(48, 0, 1, "h"), *MARKS[4:]),
        "changed: label 'k' axis=1 value=0: its text is 'h'",
    ),
    "a bar": ((*MARKS[:3], label(48, 0, 1, "k", over=True), *MARKS[4:]), "changed: label 'k' axis=1 value=0: was "),
    "missing": ((*MARKS[:2], *MARKS[3:]), "missing: wire axis=1 name=k value=0"),
    "new": ((*MARKS, wire(60, 3, 0, "h")), "new: wire axis=0 name=h value=3"),
    "one of two": (MARKS[:5], "missing: dot box=2"),
    "other value": (
        (*MARKS[:2], wire(48, 7, 1, "k"), *MARKS[3:]),
        "changed: wire axis=1 name=k value=0: value was 0, is 7",
    ),
    "other order": ((*MARKS[:4], MARKS[5], MARKS[4]), "another order, from dot box=2 on"),
}
"""For each defect the marks of the drawing that has it, and the beginning of the one line that reports it."""


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_reported_as_what_it_is(name: str) -> None:
    marks, expected = DEFECTS[name]
    (line,) = differences(drawn(), drawn(*marks))
    assert line.startswith(expected)


def test_another_size_of_the_picture_is_reported() -> None:
    found = differences(drawn(), drawn(width=100))
    assert found[0].startswith("moved: svg: svg viewBox was 0 0 96 72, is 0 0 100 72; svg width was 96, is 100")
    assert found[1:] == ["moved: rect: rect width was 96, is 100"]


def test_another_colour_is_a_change() -> None:
    found = differences(drawn(), drawn(theme="dark"))
    assert len(found) == 1 + len(MARKS)
    assert all(line.startswith("changed: ") for line in found)


def test_another_title_is_a_change() -> None:
    other = svg(Picture(96, 72, MARKS, "two <wires>"))
    assert differences(drawn(), other) == ["changed: title 'two wires': its text is 'two <wires>'"]


def test_other_bytes_of_the_same_elements_are_said() -> None:
    assert differences(drawn(), drawn().replace("/>", " />")) == ["the same elements, written otherwise"]


def test_a_report_counts_and_is_short() -> None:
    many = [wire(24 + i, i, 0, f"a{i}") for i in range(100)]
    lines = report(drawn(), drawn(*MARKS, *many)).splitlines()
    assert lines[0] == "100 new"
    assert len(lines) == MOST + 2
    assert lines[-1] == f"and {100 - MOST} more"


def test_of_other_files_the_lines_are_reported() -> None:
    old, new = (tikz(Picture(96, 72, (wire(24, 0, 0, "y"), wire(height, 0, 1, "k")))) for height in (48, 50))
    assert report(old, old, ".tex") == ""
    found = report(old, new, ".tex").splitlines()
    assert found[0] == "1 missing, 1 new"
    assert found[1].startswith("missing: ")
    assert "48" in found[1]
    assert found[2].startswith("new: ")
    assert "50" in found[2]
    assert report("a\n", "a\r\n", ".tex")


@pytest.mark.parametrize("suffix", [".svg", ".tex"])
def test_a_golden_drawing_that_has_changed_fails_and_says_what(
    suffix: str,
    golden_drawing: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    request: pytest.FixtureRequest,
) -> None:
    drawing, other = Drawing(Picture(96, 72, MARKS)), Drawing(Picture(96, 72, (wire(30, 0, 0, "y"), *MARKS[1:])))
    monkeypatch.setattr(conftest, "GOLDEN", tmp_path)
    monkeypatch.setattr(request.config.option, "update_golden", False)
    (tmp_path / "drawings").mkdir()
    with pytest.raises(pytest.fail.Exception, match="no golden file"):
        golden_drawing("two_wires", drawing)
    for each in (".svg", ".tex"):
        (other if each == suffix else drawing).save(tmp_path / "drawings" / f"two_wires{each}")
    with pytest.raises(
        pytest.fail.Exception, match=rf"two_wires\{suffix} has changed:\n(moved: wire|1 missing, 1 new)"
    ):
        golden_drawing("two_wires", drawing)
    monkeypatch.setattr(request.config.option, "update_golden", True)
    golden_drawing("two_wires", drawing)
    monkeypatch.setattr(request.config.option, "update_golden", False)
    golden_drawing("two_wires", drawing)
