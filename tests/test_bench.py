"""The measurements run, and compare what they say they compare."""

from collections.abc import Callable

import pytest
import torch
from typer.testing import CliRunner

from scripts.bench import Case, Spread, app, cases, interleaved


def test_the_checks_are_measured() -> None:
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["checks", "--blocks", "2", "--calls", "10"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in (
        "by hand",
        "circuit",
        "attention: what a check adds",
        "linear: what a check adds",
        "under torch.compile",
    ):
        assert words in ran.output


def test_tracking_is_measured() -> None:
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["tracking", "--blocks", "2"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("batch 1", "batch 8", "track, printing nothing", "torchinfo.summary"):
        assert words in ran.output


@pytest.mark.parametrize("case", cases()[0], ids=lambda case: case.title)
def test_every_variant_checks(case: Case) -> None:
    """All give the bare answer for arguments that fit, and all but the bare one refuse arguments that do not."""
    first, *others = case.arguments
    for name, function in case.variants.items():
        assert function(first, *others) is first
        if name != "bare":
            assert refuses(function, first[..., :-1], *others), name


def refuses(function: Callable[..., object], *arguments: object) -> bool:
    """Every checker has an error of its own."""
    try:
        function(*arguments)
    except Exception:
        return True
    return False


def test_turns_are_fair() -> None:
    order: list[str] = []
    times = interleaved({name: (lambda name=name: order.append(name)) for name in "abc"}, blocks=3, calls=1)
    assert order == list("abc" + "bca" + "cab")
    assert [len(each) for each in times.values()] == [3, 3, 3]
    assert Spread.of([3.0, 1.0, 2.0]).middle == 2.0
