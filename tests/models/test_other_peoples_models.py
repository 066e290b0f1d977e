"""Models of other libraries are recorded, run and differentiated as they are, or refused for a reason listed here.

The small models are surveyed by `-m slow`, and all others by `-m survey`, which takes an hour on two cores. A refusal
that is not listed fails, and so does one that is listed and no longer occurs.
"""

import importlib.util
import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import Diagram, trace
from tests.models.other_peoples_models import LIBRARIES, shares
from tests.models.survey import WAYS, WRONG, survey

ENTRIES = {name: entry for library in LIBRARIES.values() for name, entry in library.items()}

BY_DATA = "the run needs a value that depends on data"
"""A trace has no data, so it refuses code that reads it; `torch.export` refuses the same code."""


def untraced(reason: str) -> dict[str, str]:
    """Return the reasons of a model that is tracked but not traced."""
    return dict.fromkeys(("traced", "free batch", "differentiated"), reason) | {"again": "not traced"}


EXPECTED: dict[str, dict[str, str]] = {
    # A kernel reads the lengths of the sequences; indexing by a mask has a size that depends on data.
    "CTCLoss": untraced(BY_DATA),
    "AdaptiveLogSoftmaxWithLoss": untraced(BY_DATA),
    "XLMModel": untraced(BY_DATA),
    # It asks its mask whether any is set: the mask is known, because the code makes it, but not at a free size.
    "LongformerModel": {"free batch": BY_DATA},
    # Without data, the code makes a mask, which it cannot add to its scores: it raises for every mask.
    "NystromformerModel": untraced("must match the size|Attempting to broadcast"),
}
"""The refusals of each model: the ways that fail, and what the reason contains."""


@pytest.mark.every(1, 5)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if each.light else pytest.mark.survey)
        for name, each in ENTRIES.items()
    ],
)
def test_a_model_of_another_library(name: str) -> None:
    found = {way: reason for way, reason in survey(ENTRIES[name]).items() if reason}
    expected = EXPECTED.get(name, {})
    assert not [reason for reason in found.values() if reason.startswith(WRONG)], found
    assert found.keys() == expected.keys(), found
    for way, reason in found.items():
        assert re.search(expected[way], reason), f"{way}: {reason}"


def test_the_shares_that_work() -> None:
    """What the listed refusals leave: the aims, of all models together."""
    works = {
        way: 1 - sum(way in EXPECTED.get(name, {}) for name in ENTRIES) / len(ENTRIES)
        for way in WAYS
        if way != "differentiated"
    }
    assert works["tracked"] == 1
    assert works["traced"] >= 0.98
    assert min(works["again"], works["tracked again"]) >= 0.95
    assert works["free batch"] >= 0.9
    assert EXPECTED.keys() <= ENTRIES.keys()


def test_there_are_enough_models() -> None:
    least = {"timm": 60, "transformers": 30, "pytorchcv": 15, "torch.nn": 40}
    assert {library for library, entries in LIBRARIES.items() if len(entries) < least[library]} == set()


@pytest.mark.skipif("CI" not in os.environ, reason="only a release has to have every library")
@pytest.mark.parametrize("library", ["timm", "transformers", "pytorchcv"])
def test_no_library_is_missing(library: str) -> None:
    """Where a change is tested, the models are surveyed and not skipped."""
    assert importlib.util.find_spec(library) is not None, f"{library} is not installed: see scripts/peers.txt"


def test_the_table_of_shares() -> None:
    found = {"Linear": dict.fromkeys(WAYS, ""), "CTCLoss": {"tracked": "", "traced": "CircuitError:\n no data"}}
    assert shares(found).splitlines() == [
        "| library | models | tracked | tracked again | traced | again | free batch | differentiated |",
        "|---|---|---|---|---|---|---|---|",
        "| torch.nn | 2 | 2/2 (100%) | 1/1 (100%) | 1/2 (50%) | 1/1 (100%) | 1/1 (100%) | 1/1 (100%) |",
        "| all | 2 | 2/2 (100%) | 1/1 (100%) | 1/2 (50%) | 1/1 (100%) | 1/1 (100%) | 1/1 (100%) |",
        "",
        "- CTCLoss, traced: CircuitError: no data",
    ]


class Off:
    """A diagram whose result is changed."""

    def __init__(self, diagram: Diagram, change: Callable[[Tensor], Tensor]) -> None:
        self.diagram, self.change = diagram, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.diagram, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.change(self.diagram(*args, **kwargs))


@pytest.mark.parametrize(
    ("name", "change"),
    [("Linear", lambda y: y + 1e-3), ("ReLU", lambda y: y.masked_fill(y == 0, torch.nan))],
    ids=["off by a little", "nan in place of 0"],
)
def test_a_wrong_result_is_found(
    name: str, change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.models.survey.trace", lambda *args, **kwargs: Off(trace(*args, **kwargs), change))
    found = survey(ENTRIES[name])
    assert {way for way, reason in found.items() if reason.startswith(WRONG)} == {"again", "free batch"}


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "harm",
    [
        lambda model, x: model.train(),
        lambda model, x: setattr(model, "seen", 1),
        lambda model, x: setattr(model, "in_features", 1.5),
        lambda model, x: model.register_forward_hook(lambda *_: None),
        lambda model, x: nn.init.zeros_(model.weight),
        lambda model, x: x.zero_(),
        lambda model, x: torch.rand(()),
        lambda model, x: random.random(),
    ],
)
def test_a_recording_that_changes_something_is_found(harm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def harming(model: Any, *args: Any, **kwargs: Any) -> Diagram:
        diagram = trace(model, *args, **kwargs)
        if args:
            harm(model, *args)
        return diagram

    monkeypatch.setattr("tests.models.survey.trace", harming)
    assert survey(ENTRIES["Linear"])["traced"].startswith(WRONG)


def test_a_parameter_of_another_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    other = nn.Sequential(nn.Linear(6, 3))
    monkeypatch.setattr("tests.models.survey.trace", lambda model, *args, **kwargs: trace(other, *args, **kwargs))
    assert "parameters differ" in survey(ENTRIES["Linear"])["traced"]
