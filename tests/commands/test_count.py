"""`python -m circuits count`: what it prints, and mistakes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuits import MACHINES, count
from circuits.commands import app
from models.attention import MultiHeadAttention

ATTENTION = ("count", "models.attention:MultiHeadAttention", "m=16", "k=4", "h=2")


def run(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    return result.output


def test_the_table_has_formulas_in_the_free_axes() -> None:
    lines = run(*ATTENTION, "--columns", "flops parameters").splitlines()
    assert lines[0].split() == ["box", "FLOPs", "parameters"]
    assert lines[1].split()[-6:] == ["32*x*y", "+", "512*x", "+", "512*y", "512"]


def test_sizes_groups_and_order() -> None:
    lines = run(*ATTENTION, "--at", "y=1 x=64", "--by", "circuit", "--sort", "flops", "--columns", "flops").splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["MultiHeadAttention", "attention", "total"]
    assert lines[5].split(maxsplit=1)[1].startswith("y=1, m=16 from target; x=64 from source")


@pytest.mark.slow
def test_the_table_fits_a_width_and_a_screen() -> None:
    cost = count(MultiHeadAttention(m=16, k=4, h=2))
    assert run(*ATTENTION).rstrip("\n") == cost.table() == cost.table(width=120)
    narrow = run(*ATTENTION, "--width", "60")
    assert narrow.rstrip("\n") == cost.table(width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert run(*ATTENTION, "--depth", "0").rstrip("\n") == cost.table(depth=0)
    assert run(*ATTENTION, "--all").rstrip("\n") == cost.table(depth=None)


def test_the_reverse_pass_is_twice_the_forward_pass() -> None:
    data = json.loads(run(*ATTENTION, "y=3", "x=5", "--backward", "--form", "json"))
    forward, reverse = [row for row in data["rows"] if len(row["place"]) == 1]
    assert reverse["flops"] == 2 * forward["flops"]
    assert data["total"]["saved"] > 0


@pytest.mark.slow
def test_what_is_saved_fits_into_a_budget() -> None:
    plain, fitted = [
        json.loads(run(*ATTENTION, "y=30", "x=30", "--backward", "--form", "json", *words))["total"]
        for words in ((), ("--fit", "10 kB"))
    ]
    assert fitted["saved"] <= 10_000 < plain["saved"]
    assert fitted["flops"] > plain["flops"]


def test_lower_bounds_on_a_machine() -> None:
    lines = run(*ATTENTION, "--at", "y=1 x=64", "--on", "H100 SXM", "--depth", "0").splitlines()
    assert "unfused" in lines[0].split()
    assert lines[1].split()[-1] == "bandwidth"
    assert lines[3].startswith("H100 SXM, at most: float32 67 TFLOP/s (ridge at 20 FLOPs/byte)")


def test_lower_bounds_on_a_measured_machine(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    path.write_text(json.dumps(MACHINES["A100 SXM"].to_dict()))
    data = json.loads(run(*ATTENTION, "y=3", "x=5", "--on", f"{path}", "--form", "json"))
    assert data["machine"]["name"] == "A100 SXM"
    assert 0 < data["total"]["fused"] < data["total"]["unfused"]
    path.write_text("[]")
    result = CliRunner().invoke(app, [*ATTENTION, "--on", f"{path}"])
    assert result.exit_code == 2
    assert f"--on: {path} is no file of a machine" in result.output


@pytest.mark.every(6)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backward", "--fit", "2 GB"), "error: fit: bytes are compared as numbers"),
        (("--fit", "2 GB", "--recompute", "y x"), "--recompute says what is recomputed, and --fit"),
        (("--on", "H100"), "error: on: no machine is called 'H100'; there are H100 SXM, A100 SXM"),
        (("--on", "none.json"), "error: --on: none.json is no file of a machine: FileNotFoundError"),
        (("--on", "H100 SXM", "--form", "csv"), "error: --on is a table of its own, as text or json"),
        (("--at", "z=3"), "error: at: there is no free axis z; the free axes are y, x"),
        (("--sort", "flops"), "error: sort: flops depends on free axes"),
        (("--columns", "time"), "error: a cost has no column 'time'"),
        (("--form", "csv", "--depth", "1"), "error: --columns, --depth, --all and --width are for text"),
        (("--all", "--depth", "1"), "error: give --depth or --all, not both"),
        (("--recompute", "y x"), "error: count: recompute and wrt are about the reverse pass"),
    ],
)
def test_mistakes_are_one_message(words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, [*ATTENTION, *words])
    assert result.exit_code in (1, 2)
    assert message in result.output
