"""`python -m circuits summary`: the table of a TARGET, its options, and mistakes as messages."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from circuits import trace
from circuits.commands import app
from models.attention import MultiHeadAttention
from models.mlp import MLP

ROOT = Path(__file__).parents[2]
ATTENTION = "models.attention:MultiHeadAttention", "k=16", "h=4"
PERCEPTRON = "models.mlp:MLP.probabilities"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["summary", *words])


@pytest.mark.smoke
def test_a_model_is_printed_as_trace_prints_it() -> None:
    answer = run(*ATTENTION, "y=20", "x=22", "m=64")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.rstrip("\n") == trace(MultiHeadAttention(m=64, k=16, h=4), sizes={"y": 20, "x": 22}).table()


def test_without_sizes_the_axes_stay_symbols() -> None:
    assert "y 128, x 128 -> y 128" in run(*ATTENTION, "m=128", "--columns", "sizes").stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("torch.nn:LSTM", "input_size=8", "hidden_size=4", "axes=t b 8"), "t b 8 -> t b 4"),
        (("torch.nn:Conv2d", "in_channels=3", "out_channels=8", "kernel_size=(3, 3)", "axes=b 3 h w"), "b 3 h w"),
        (("models.attention:attention", "k=16"), "y 16, x 16, x 16 -> y 16"),
    ],
)
def test_any_class_or_circuit_can_be_named(words: tuple[str, ...], expected: str) -> None:
    answer = run(*words)
    assert answer.exit_code == 0, answer.output
    assert expected in answer.stdout


def test_options_are_those_of_the_table() -> None:
    diagram = trace(MLP().probabilities)
    asked = {
        ("--depth", "1"): {"depth": 1},
        ("--all",): {"depth": None},
        ("--width", "60"): {"width": 60},
        ("--columns", "parameters memory", "--sort", "memory", "--all"): {
            "columns": ["parameters", "memory"],
            "sort": "memory",
        },
    }
    for words, options in asked.items():
        assert run(PERCEPTRON, *words).stdout.rstrip("\n") == diagram.table(**options)
    assert run(PERCEPTRON, "--markdown").stdout == diagram.to_markdown()


def without_places(box: dict[str, Any]) -> dict[str, Any]:
    """The diagram without the lines of the calls, which differ."""
    boxes = [without_places(inner) for inner in box["boxes"]]
    return {**{name: value for name, value in box.items() if name != "where"}, "boxes": boxes}


def test_json_is_the_diagram_as_plain_data() -> None:
    data = json.loads(run(PERCEPTRON, "--json").stdout)
    assert without_places(data) == without_places(json.loads(json.dumps(trace(MLP().probabilities).to_dict())))
    assert data["totals"]["parameters"] == 669_706


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("torch.nn:Nope",), "torch.nn has no Nope"),
        (("torch.nn:Linear",), "torch.nn:Linear needs in_features=... out_features=..."),
        ((*ATTENTION, "m=8", "q=3"), "takes no q; it takes"),
        ((PERCEPTRON, "--all", "--depth", "1"), "give --depth or --all, not both"),
    ],
)
def test_a_mistake_in_the_words_is_told_and_ends_with_2(words: tuple[str, ...], said: str) -> None:
    answer = run(*words)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--columns", "flops"), "a table has no column 'flops'; it has axes, sizes"), (("--sort", "where"), "sorted by")],
)
def test_an_unknown_column_is_told_and_ends_with_1(words: tuple[str, ...], said: str) -> None:
    answer = run(PERCEPTRON, *words)
    assert answer.exit_code == 1
    assert said in answer.stderr


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "utf-8"])
def test_it_runs_as_a_module_on_any_terminal(encoding: str) -> None:
    words = [sys.executable, "-m", "circuits", "summary", "torch.nn:LSTM", "input_size=4", "hidden_size=3"]
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "PATH": ""}
    answer = subprocess.run([*words, "num_layers=4", "axes=t b 4"], cwd=ROOT, env=environment, capture_output=True)
    text = io.TextIOWrapper(io.BytesIO(answer.stdout), encoding=encoding).read()
    assert ("… 14 more" in text) == (encoding in ("cp1252", "utf-8")), answer.stderr
    assert "14 more" in text
