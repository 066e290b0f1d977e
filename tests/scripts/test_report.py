"""What a run shows, and what it writes for people."""

import io
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from scripts import checkpoint
from scripts.checkpoint import Record
from scripts.loop import Run
from scripts.report import curve, epoch_line, fit, text_curve
from tests.scripts.toy import PLAN, assert_log, finish, kill, toy_task


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    with toy_task():
        yield


def shown(folder: Path, *, terminal: bool, resume: bool = False, epochs: int = 4) -> tuple[Run, str]:
    """A finished run and what it printed."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140)
    run = Run(replace(PLAN, epochs=epochs), folder, resume=resume)
    fit(run, console)
    assert isinstance(console.file, io.StringIO)
    return run, console.file.getvalue()


def test_the_bar_of_a_terminal_has_loss_rate_and_speed(tmp_path: Path) -> None:
    _, text = shown(tmp_path, terminal=True)
    assert re.search(r"training.*100%.*loss \d\.\d{4}  rate \d\.\d\de-\d\d  [\d,]+ items/s", text) or re.search(
        r"training.*loss \d\.\d{4}  rate \d\.\d\de-\d\d  [\d,]+ items/s", text
    )


def test_there_is_no_bar_elsewhere_and_a_line_for_each_epoch(tmp_path: Path) -> None:
    run, text = shown(tmp_path, terminal=False)
    lines = [epoch_line(n, 4, entry, "accuracy", "{:.2%}") for n, entry in enumerate(run.record.history, 1)]
    assert text.splitlines() == lines


def test_the_numbers_of_an_epoch_are_those_of_the_model(tmp_path: Path) -> None:
    run = finish(tmp_path, plan=replace(PLAN, epochs=1))
    (entry,) = run.record.history
    inputs, targets = (each[run.splits.validation] for each in (run.examples.inputs, run.examples.targets))
    logits = run.model.eval()(inputs)
    loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert entry["validation_loss"] == pytest.approx(loss.item())
    assert entry["validation"] == pytest.approx((logits.argmax(-1) == targets).double().mean().item())
    assert 0 < entry["seconds"] < 60


@pytest.mark.slow
def test_an_extended_run_says_how_its_rate_goes_on(tmp_path: Path) -> None:
    old, _ = shown(tmp_path, terminal=False)
    new, text = shown(tmp_path, terminal=False, resume=True, epochs=6)
    before, now = old.record.history[-1]["rate"], new.rate(16)
    assert before < now
    assert text.splitlines()[0] == (
        "6 epochs instead of 4: the learning rate is on the schedule of the new length"
        f" ({before:.2e} before, {now:.2e} now), and the test split is scored again"
    )
    assert [line.split()[1] for line in text.splitlines()[1:]] == ["5/6", "6/6"]


def test_a_log_that_was_lost_or_changed_is_written_again(tmp_path: Path) -> None:
    kill(torch.optim.AdamW, "step", 6, lambda: finish(tmp_path))
    log = tmp_path / checkpoint.LOG
    log.write_text(log.read_text() * 3)
    assert_log(finish(tmp_path, resume=True))
    log.unlink()
    assert_log(finish(tmp_path, resume=True))


# --- TensorBoard ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tensorboard_has_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package's writer, which drops what a former run wrote from the step `purge_step` on."""
    held: dict[tuple[str, int], float] = {}
    opened = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert Path(folder) == tmp_path / "tensorboard"
            for name, step in [*held]:
                if step >= purge_step:
                    del held[name, step]
            opened.append(True)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert (name, step) not in held
            held[name, step] = value

        def flush(self) -> None:
            pass

        def close(self) -> None:
            opened.pop()

    stand_in: Any = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    kill(checkpoint, "publish", 2, lambda: finish(tmp_path))
    run = finish(tmp_path, resume=True)
    assert held == {
        (name, number): entry[name] for number, entry in enumerate(run.record.history, 1) for name in checkpoint.EPOCH
    }
    assert not opened


# --- The learning curve -----------------------------------------------------------------------------------------------


def record(*losses: float) -> Record:
    names = dict.fromkeys(checkpoint.EPOCH, 0.5)
    history = [{**names, "loss": loss, "validation_loss": loss / 2} for loss in losses]
    return Record({}, "", [], history, best=1)


@pytest.mark.slow
def test_the_learning_curve_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert curve(record(3.0, 2.0, 1.0), tmp_path, "accuracy") == f"learning curve: {tmp_path}/curve.png"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert "matplotlib.pyplot" not in sys.modules  # no window, and no setting of the process is changed


def test_without_matplotlib_the_learning_curve_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = curve(record(4.0, 2.0, 1.0), tmp_path, "accuracy")
    assert text == text_curve({"training": [4.0, 2.0, 1.0], "validation": [2.0, 1.0, 0.5]})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("count", [1, 2, 59, 60, 61, 1000])
def test_a_curve_of_any_length_fits(count: int) -> None:
    rows = text_curve({"training": [float(count - number) for number in range(count)]}, width=60, height=7).splitlines()
    marked = [(row.index("|"), row) for row in rows[:-1]]
    assert len(marked) == 7
    assert {place for place, _ in marked} == {rows[0].index("|")}
    columns = sorted(place for start, row in marked for place, mark in enumerate(row[start + 1 :]) if mark == "t")
    assert {*columns} == {*range(min(count, 60))}
    assert rows[-1].strip() == f"epochs 1 to {count}; t: training, *: both"


@pytest.mark.slow
def test_a_curve_leaves_out_what_is_not_finite() -> None:
    text = text_curve({"training": [float("nan"), 2.0, float("inf"), 1.0]}, height=2)
    assert text.splitlines()[:2] == ["2 | t", "1 |   t"]
    assert "t" not in text_curve({"training": [float("nan")]}).splitlines()[0]
