import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
from circuits import CircuitError
from scripts import checkpoint
from scripts.checkpoint import CheckpointError
from scripts.data import Examples, split
from scripts.loop import Run, update_average
from scripts.options import resolve_config
from scripts.schedule import Schedule, rate
from scripts.scores import ACCURACY, correct, smoothed_cross_entropy
from tests.scripts.toy import (
    PLAN,
    TOY,
    Toy,
    assert_same_end,
    count_calls,
    files,
    finish,
    kill,
    toy_task,
    toys,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    with toy_task():
        yield


# --- The curve --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_curve_and_another_another(tmp_path: Path) -> None:
    first = finish(tmp_path / "first")
    assert_same_end(first, finish(tmp_path / "second"))
    other = finish(tmp_path / "third", plan=replace(PLAN, seed=4))
    assert first.record.history != other.record.history


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was not interrupted."""
    with toy_task():
        return finish(tmp_path_factory.mktemp("whole"))


# 30 training examples in batches of 8 are 4 steps an epoch, 16 in all.
@pytest.mark.every(4)
@pytest.mark.parametrize("call", [0, 4, 5, 7, 8, 15])
def test_a_run_killed_in_an_epoch_resumes_on_the_same_curve(tmp_path: Path, whole: Run, call: int) -> None:
    kill(torch.optim.AdamW, "step", call, lambda: finish(tmp_path))
    torch.manual_seed(99)  # another process would start elsewhere
    assert_same_end(finish(tmp_path, resume=call >= 4), whole)


SHORT = replace(PLAN, epochs=2)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with toy_task():
        return finish(tmp_path_factory.mktemp("short"), plan=SHORT)


# Two epochs and the test write three checkpoints. Each puts five files: state, record, best, last, log.
CALLS = [
    (Path, "replace", 15),
    (Path, "unlink", 8),
    (Path, "chmod", 15),
    (os, "fsync", 15),
    (checkpoint, "save_file", 3),
    (models, "save", 6),
]


@pytest.mark.parametrize(("place", "name", "count"), CALLS)
def test_every_moment_of_writing_is_among_those_of_the_kills(tmp_path: Path, place: Any, name: str, count: int) -> None:
    assert count_calls(place, name, lambda: finish(tmp_path, plan=SHORT)) == count


@pytest.mark.every(26)
@pytest.mark.parametrize(
    ("place", "name", "call"), [(place, name, call) for place, name, count in CALLS for call in range(count)]
)
def test_a_run_killed_while_it_writes_resumes_on_the_same_curve(
    tmp_path: Path, short: Run, place: Any, name: str, call: int
) -> None:
    """Also the models, the log and the names of all files are those of the run that was not interrupted."""
    kill(place, name, call, lambda: finish(tmp_path, plan=SHORT))
    torch.manual_seed(99)
    resume = (tmp_path / checkpoint.RECORD).exists()
    assert_same_end(finish(tmp_path, resume=resume, plan=SHORT), short)


def test_a_run_killed_again_and_again_resumes_on_the_same_curve(tmp_path: Path, whole: Run) -> None:
    for resume in (False, True, True):
        kill(torch.optim.AdamW, "step", 6, lambda resume=resume: finish(tmp_path, resume=resume))
    assert len(checkpoint.read(tmp_path).history) == 3
    assert_same_end(finish(tmp_path, resume=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize("saved", [1, 2, 3])  # whichever file the state of the old run is in
@pytest.mark.parametrize(
    ("place", "name", "call"),
    [(torch.optim.AdamW, "step", 2), (Path, "replace", 0), (Path, "replace", 1), (Path, "unlink", 4)],
)
def test_a_new_run_killed_in_its_first_epoch_leaves_the_old_one_whole(
    tmp_path: Path, whole: Run, saved: int, place: Any, name: str, call: int
) -> None:
    kill(torch.optim.AdamW, "step", 4 * saved, lambda: finish(tmp_path))
    kill(place, name, call, lambda: finish(tmp_path, plan=replace(PLAN, seed=8)))
    assert len(checkpoint.read(tmp_path).history) == saved
    assert_same_end(finish(tmp_path, resume=True), whole)


@pytest.mark.slow
def test_no_model_of_an_old_run_stays_beside_the_record_of_a_new_one(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / checkpoint.CURVE).write_bytes(b"a picture")
    kill(models, "save", 0, lambda: finish(tmp_path, plan=replace(PLAN, seed=8)))
    assert files(tmp_path) == [checkpoint.RECORD, "state-b.safetensors", "state-b.safetensors"]
    assert checkpoint.read(tmp_path).plan["seed"] == 8


@pytest.mark.slow
def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    kill(torch.optim.AdamW, "step", 6, lambda: finish(tmp_path))
    expected = files(tmp_path)
    for name in (checkpoint.BEST, checkpoint.LOG, checkpoint.RECORD):
        left = tmp_path / f".{name}.01ab23cd"
        left.mkdir()
        (left / "written").write_bytes(b"half")
    finish(tmp_path, resume=True)
    assert files(tmp_path) == expected


@pytest.mark.slow
def test_a_real_kill(tmp_path: Path) -> None:
    """Send SIGKILL to a separate process after its first save."""
    options = {"data": "digits", "epochs": 12, "batch_size": 256, "device": "cpu"}
    command = [sys.executable, "-m", "scripts.train", "mlp", "--out", str(tmp_path / "killed")]
    command += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", f"{value}")]
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


@pytest.mark.slow
def test_the_test_part_is_looked_at_once_at_the_end_and_never_learned_from(tmp_path: Path) -> None:
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
    with toy_task(task):
        run = finish(tmp_path)
        finish(tmp_path, resume=True)  # a finished run only says its score again
    learned, chosen, kept = ({*part.tolist()} for part in run.splits)
    assert [what for what, _ in seen] == (["loss"] * 5 + ["score"]) * 4 + ["loss", "score"]
    for epoch in range(4):
        assert set().union(*(which for _, which in seen[6 * epoch : 6 * epoch + 4])) == learned
        assert seen[6 * epoch + 4 : 6 * epoch + 6] == [("loss", chosen), ("score", chosen)]
    assert seen[-2:] == [("loss", kept), ("score", kept)]


@pytest.mark.slow
def test_each_step_has_its_rate_and_each_epoch_the_mean_loss_of_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, losses = [], []
    step = torch.optim.AdamW.step

    def counted(optimizer: torch.optim.AdamW) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    def loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        found = smoothed_cross_entropy(model, inputs, targets)
        if model.training:
            losses.extend([found.item()] * len(targets))
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    with toy_task(replace(TOY, loss=loss)):
        run = finish(tmp_path)
    assert rates == [PLAN.lr * rate(number, 16) for number in range(16)]
    assert [entry["rate"] for entry in run.record.history] == rates[3::4]
    means = torch.tensor(losses).view(4, 30).mean(-1)  # 30 examples an epoch, the last batch smaller
    torch.testing.assert_close(torch.tensor([entry["loss"] for entry in run.record.history]), means)


def test_the_seed_decides_the_parts(tmp_path: Path) -> None:
    run = Run(PLAN, tmp_path, resume=False)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(run.splits, split(torch.arange(50), PLAN.seed), strict=True)
    )


@pytest.mark.slow
def test_resuming_asks_for_the_same_arguments(tmp_path: Path) -> None:
    saved = finish(tmp_path).record
    assert resolve_config({"task": "toy", "lr": None, "device": "cpu"}, saved) == PLAN
    with pytest.raises(CheckpointError, match=r"the run there has lr 0\.01, not 0\.1; seed 3, not 4"):
        resolve_config({"task": "toy", "lr": 0.1, "seed": 4}, saved)


# --- A run is extended ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_extended_run_goes_on_by_the_schedule_of_its_new_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def counted(optimizer: torch.optim.AdamW) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    old = finish(tmp_path)
    plan = resolve_config({"task": "toy", "epochs": 6}, old.record)
    assert plan == replace(PLAN, epochs=6)
    new = finish(tmp_path, resume=True, plan=plan)
    assert rates == [PLAN.lr * rate(number, 16 if number < 16 else 24) for number in range(24)]
    assert new.record.history[:4] == old.record.history
    assert len(new.record.history) == 6
    assert new.record.test is not None
    assert_same_end(finish(tmp_path, resume=True, plan=plan), new)


@pytest.mark.slow
@pytest.mark.parametrize("call", range(6))
def test_a_run_killed_as_it_is_extended_resumes_on_the_same_curve(tmp_path: Path, call: int) -> None:
    plan = replace(SHORT, epochs=3)
    finish(tmp_path / "whole", plan=SHORT)
    finish(tmp_path / "killed", plan=SHORT)
    whole = finish(tmp_path / "whole", resume=True, plan=plan)
    kill(Path, "replace", call, lambda: finish(tmp_path / "killed", resume=True, plan=plan))
    assert checkpoint.read(tmp_path / "killed").plan["epochs"] == (2 if call < 2 else 3)
    torch.manual_seed(99)
    assert_same_end(finish(tmp_path / "killed", resume=True, plan=plan), whole)


def test_a_run_that_is_extended_has_its_new_length_from_the_first_step_on(tmp_path: Path) -> None:
    """Without it, a run that is killed before its next epoch ends would count as finished."""
    finish(tmp_path, plan=SHORT)
    plan = replace(SHORT, epochs=3)
    kill(torch.optim.AdamW, "step", 0, lambda: finish(tmp_path, resume=True, plan=plan))
    assert resolve_config({}, checkpoint.read(tmp_path)) == plan
    assert checkpoint.read(tmp_path).test is None


@pytest.mark.slow
def test_a_run_cannot_be_shorter_than_it_is(tmp_path: Path) -> None:
    kill(torch.optim.AdamW, "step", 13, lambda: finish(tmp_path))
    record = checkpoint.read(tmp_path)
    with pytest.raises(CheckpointError, match="the run there has 3 epochs behind it, more than 2"):
        resolve_config({"task": "toy", "epochs": 2}, record)
    assert resolve_config({"task": "toy", "epochs": 3}, record).epochs == 3


# --- The models of a run ----------------------------------------------------------------------------------------------


def test_the_best_and_the_last_model_can_be_loaded(tmp_path: Path) -> None:
    """The best of a run whose scores fall is the first; a run of that many epochs ends with the same weights."""
    scores = iter([0.25, 0.75, float("nan"), 0.75, 0.5, 0.75])
    falling = replace(ACCURACY, total=lambda tallies: torch.tensor(next(scores)))
    with toy_task(replace(TOY, score=falling)):
        run = finish(tmp_path / "run", plan=replace(PLAN, epochs=5, schedule="constant", warmup=0.0))
    two = finish(tmp_path / "two", plan=replace(PLAN, epochs=2, schedule="constant", warmup=0.0))
    assert run.record.best == 2
    assert run.record.test == 0.75
    for name, expected in ((checkpoint.BEST, two.model), (checkpoint.LAST, run.model)):
        loaded = models.load(run.folder / name)
        assert type(loaded) is Toy
        for key, value in expected.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), f"{name}: {key}"


def test_a_score_that_falls_is_best_where_it_is_least(tmp_path: Path) -> None:
    scores = iter([2.5, 1.5, 2.0, 1.5, 1.0])
    falling = replace(ACCURACY, total=lambda tallies: torch.tensor(next(scores)), falls=True)
    with toy_task(replace(TOY, score=falling)):
        assert finish(tmp_path).record.best == 2


def test_the_test_score_is_that_of_the_best_model(tmp_path: Path) -> None:
    run = finish(tmp_path)
    model = models.load(tmp_path / checkpoint.BEST).eval()
    inputs, targets = run.examples.inputs[run.splits.test], run.examples.targets[run.splits.test]
    assert run.record.test == correct(model, inputs, targets).double().mean().item()


def test_all_files_have_ordinary_permissions(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "ordinary").touch()
    assert {oct(path.stat().st_mode) for path in tmp_path.iterdir()} == {oct((tmp_path / "ordinary").stat().st_mode)}


def test_any_file_of_a_run_is_loaded_or_refused_with_the_one_to_load(tmp_path: Path) -> None:
    finish(tmp_path)
    for path in tmp_path.iterdir():
        if path.name in (checkpoint.BEST, checkpoint.LAST):
            models.load(path)
            continue
        with pytest.raises(CircuitError, match=rf"; load {tmp_path}/best\.safetensors or {tmp_path}/last\.safetensors"):
            models.load(path)


# --- A step -----------------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A classifier whose loss for a batch is the mean of the losses of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.stack(images.flatten(1))


PLAIN = replace(TOY, model=lambda examples: Plain().double(), augment=lambda images: images)


def doubled() -> Examples:
    examples = toys()
    return replace(examples, inputs=examples.inputs.double())


def trained(folder: Path, **options: Any) -> Run:
    """A run of one epoch of the classifier above, in double precision; nothing is saved."""
    with toy_task(replace(PLAIN, data={"toys": doubled})), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *_: None)
        run = Run(replace(PLAN, epochs=1, **options), folder, resume=False)
        run.epoch()
    return run


def test_batches_whose_gradients_are_averaged_are_one_large_batch(tmp_path: Path) -> None:
    """30 examples are a step of 24 and one of 6, which is not a whole number of batches."""
    parts, large = (
        trained(tmp_path, batch_size=size, accumulate=count, clip=0.1, ema=0.9) for size, count in ((4, 6), (24, 1))
    )
    for kind in ("model", "average"):
        for ours, theirs in zip(parts.held[kind].parameters(), large.held[kind].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert parts.record.history[0]["loss"] == pytest.approx(large.record.history[0]["loss"])
    single = trained(tmp_path, batch_size=4, accumulate=1, clip=0.1)
    assert not torch.equal(single.model.stack[0].weight, large.model.stack[0].weight)  # pyright: ignore


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_a_run_is_a_loop_written_by_hand(tmp_path: Path, clip: float) -> None:
    """With clipping, weight decay, a linear schedule and a moving average."""
    run = trained(tmp_path, clip=clip, ema=0.8, schedule="linear", warmup=0.5, weight_decay=0.3)
    torch.manual_seed(PLAN.seed)
    model, examples = Plain().double(), doubled()
    averages = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.3)
    train = split(examples.sources, PLAN.seed).train
    order = train[torch.randperm(30)]
    for step in range(4):
        optimizer.param_groups[0]["lr"] = PLAN.lr * (0.5, 1, 1, 0.5)[step]
        batch = order[8 * step : 8 * step + 8]
        optimizer.zero_grad()
        F.cross_entropy(model(examples.inputs[batch]), examples.targets[batch], label_smoothing=0.1).backward()
        if clip:
            norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()  # pyright: ignore
            assert norm > clip
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        decay = min(0.8, (1 + step) / (10 + step))
        averages = [decay * mean + (1 - decay) * new for mean, new in zip(averages, model.parameters(), strict=True)]
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(run.held["average"].parameters(), averages, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_average_has_running_statistics_and_tied_weights_once() -> None:
    average, model = Toy(), Toy()
    model(torch.rand(5, 4, 4))
    expected = {
        name: value.clone() if value.dtype == torch.long else 0.75 * old + 0.25 * value
        for (name, value), old in zip(model.state_dict().items(), average.state_dict().values(), strict=True)
    }
    update_average(average, model, 0.75)
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert average.tied.weight is average.stack[4].weight


@pytest.mark.slow
def test_the_average_is_what_is_scored_saved_and_resumed(tmp_path: Path) -> None:
    plan = replace(PLAN, ema=0.9)
    whole = finish(tmp_path / "whole", plan=plan)
    kill(torch.optim.AdamW, "step", 6, lambda: finish(tmp_path / "killed", plan=plan))
    resumed = finish(tmp_path / "killed", resume=True, plan=plan)
    assert_same_end(resumed, whole)
    last = models.load(tmp_path / "whole" / checkpoint.LAST)
    assert isinstance(last, Toy)
    assert torch.equal(last.tied.weight, whole.held["average"].tied.weight)  # pyright: ignore
    assert not torch.equal(last.tied.weight, whole.model.tied.weight)  # pyright: ignore
    assert whole.record.history[-1]["validation_loss"] == whole.evaluate(last, whole.splits.validation)[0]


def test_the_rates_of_each_schedule() -> None:
    steps = 40
    cosine, linear, constant = ([rate(step, steps, each, 0.25) for step in range(steps)] for each in Schedule)
    assert cosine[:10] == linear[:10] == constant[:10] == [(step + 1) / 10 for step in range(10)]
    assert constant[10:] == [1.0] * 30
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    for step in range(30):
        assert cosine[10 + step] == pytest.approx(theirs.get_last_lr()[0])
        assert linear[10 + step] == pytest.approx(1 - step / 30)
        optimizer.step()
        theirs.step()


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
    written = {checkpoint.RECORD, text["tensors"], checkpoint.BEST, checkpoint.LAST, checkpoint.LOG}
    assert {path.name for path in tmp_path.iterdir()} == written
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
        file = next(path.parent.glob("state-*.safetensors"))
        save_file(change(load_file(file)), file)

    return harm


@pytest.mark.every(7)
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "nothing to resume"),
        (lambda path: path.write_text("{"), "is not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not JSON"),
        (lambda path: path.write_text("[]"), "not a checkpoint of format 4"),
        (lambda path: path.write_text(path.read_text().replace('"format": 4', '"format": 3')), "format 4"),
        (lambda path: path.write_text(path.read_text().replace(".safetensors", ".gone")), "does not fit"),
        (lambda path: next(path.parent.glob("state-*")).write_bytes(b"short"), "does not fit"),
    ],
)
def test_a_broken_checkpoint_is_refused_in_one_line(tmp_path: Path, harm: Callable[[Path], object], words: str) -> None:
    finish(tmp_path)
    harm(tmp_path / checkpoint.RECORD)
    with pytest.raises(CheckpointError, match=words):
        finish(tmp_path, resume=True)
    finish(tmp_path)  # a new run can always start there


@pytest.mark.every(6)
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_text("[" * 100_000), "is not JSON"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        *[(without(name), f"damaged: '{name}'") for name in checkpoint.KINDS],
        *[(changed(name, [1]), "damaged|does not fit|have changed") for name in checkpoint.KINDS],
        (changed("history", [{"loss": 1.0}]), "has not the numbers loss, validation_loss, validation, rate, seconds"),
        (changed("best", 2), "the best epoch is not one of its history"),
        (changed("data", "0123"), "the data toys have changed since the run there began"),
        (changed("names", ["a", "b", "c"]), "the data toys have changed"),
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
    first, second = [name for name in tensors if name.endswith(("0.exp_avg", "0.exp_avg_sq"))][:2]
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


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    finish(tmp_path)
    other = replace(TOY, model=lambda examples: nn.Linear(16, 3))
    with toy_task(other), pytest.raises(CheckpointError, match="does not fit this model"):
        Run(PLAN, tmp_path, resume=True)
