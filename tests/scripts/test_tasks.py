"""Every task of scripts.train at a small size; as slow tests, at full size up to the expected score."""

import doctest
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import models
from circuits import plan_sharding, trace
from scripts import checkpoint, data, loop, options, own_data, recompute, report, schedule, scores, tasks, train
from scripts.data import Examples
from scripts.distributed import axes_over
from scripts.export import export_model
from scripts.loop import Run
from scripts.options import Config, resolve_config
from scripts.report import fit
from scripts.tasks import TASKS, Task
from tests.scripts.toy import without_times

ROOT = Path(__file__).parents[2]
DEEP = ("resnet", "unet", "visual_attention", "language_model", "sequence_to_sequence", "vision_transformer")
FULL = {**TASKS}
DATA = [
    pytest.param(name, key, marks=[pytest.mark.slow] * (name in DEEP))
    for name, task in FULL.items()
    for key in task.data
]
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in TASKS]
"""Each task; those whose models take a second or more in the slow tests."""


@cache
def some(load: Callable[..., Examples], count: int = 60) -> Examples:
    """A few examples from many sources; of a text the first characters."""
    examples = load(count) if load in (data.cluttered, data.kinds) else load()
    which = torch.arange(count) * (len(examples) // count)
    inputs, targets = examples.inputs[which], examples.targets[which]
    if load is data.topics:
        inputs, targets = inputs[:, :48], targets[:, :48]
    return replace(examples, inputs=inputs, targets=targets, sources=examples.sources[which])


def small(name: str) -> Task:
    """The task with few examples, its smallest images, and a batch size that fits."""
    task = FULL[name]
    key = "digits" if "digits" in task.data else next(iter(task.data))
    return replace(task, data={"few": partial(some, task.data[key])}, batch_size=12, epochs=3)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FULL:
        monkeypatch.setitem(TASKS, name, small(name))


def plan(name: str, **asked: Any) -> Config:
    return resolve_config({"task": name, "seed": 1, "device": "cpu", **asked}, None)


def finish(name: str, folder: Path, *, resume: bool = False) -> Run:
    run = Run(plan(name), folder, resume=resume)
    fit(run, Console(quiet=True))
    return run


# --- Data, models and scores fit each other ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), DATA)
def test_a_model_takes_its_data_and_is_scored_by_the_example(name: str, key: str) -> None:
    task, given = FULL[name], some(FULL[name].data[key])
    model: Any = task.model(given)
    augmented = task.augment(given.inputs)
    assert (augmented.shape, augmented.dtype) == (given.inputs.shape, given.inputs.dtype)
    assert task.loss(model, augmented[:4], given.targets[:4]).isfinite()
    model.eval()
    tallies = task.score.tally(model, given.inputs[:4], given.targets[:4])
    assert len(tallies) == 4
    single = task.score.tally(model, given.inputs[3:4], given.targets[3:4])
    torch.testing.assert_close(tallies[3:], single)
    assert float(task.score.text.format(task.score.total(tallies.double()).item()).rstrip("%")) >= 0


@pytest.mark.parametrize("name", EACH)
def test_each_model_has_a_table(name: str) -> None:
    model = FULL[name].model(small(name).data["few"]())
    assert f"{trace(model)}".splitlines()[1].startswith(f"{type(model).__name__}: ")


@pytest.mark.parametrize("name", [each for each in EACH if FULL[str(each.values[0])].split])
def test_a_task_can_use_all_of_its_mesh_axes_together(name: str) -> None:
    """Data alone sends nothing in the forward pass; each other mesh axis has its own communications."""
    task = small(name)
    examples = task.examples("few", 28)
    model, sizes = task.model(examples), dict.fromkeys(task.split.values(), 2)
    arguments = task.arguments(model, examples.inputs[:4], examples.targets[:4])
    plan = plan_sharding(model, sizes, axes_over(task, sizes), *arguments, axes=task.axes, names=task.names)
    assert plan.data == ("data",)
    assert {move.mesh_axis for move in plan.moves} == {*sizes} - {"data"}


def test_the_network_around_visual_attention_is_as_it_says() -> None:
    p, c, k, h, n = 4, 6, 5, 3, 10
    model = tasks.VisualRecogniser(p, c, k, h, n)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == (p * p + 1) * c + 36 * c * h * k + (c + 1) * n
    image = torch.rand(2, 1, 12, 16)
    patches = torch.relu(model.patches(image))
    places = torch.relu(model.attention(patches, patches)).flatten(2)
    torch.testing.assert_close(model(image), sum(model.linear(place) for place in places.unbind(-1)) / 12)


@pytest.mark.every(2)
@pytest.mark.parametrize(
    "module", [checkpoint, data, loop, options, own_data, recompute, report, schedule, scores, tasks, train]
)
def test_examples_in_docstrings_are_right(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


# --- Each learns, and goes on where it was killed ---------------------------------------------------------------------


@pytest.mark.every(2)
@pytest.mark.parametrize("name", EACH)
def test_each_task_learns_and_a_killed_run_ends_as_one_nobody_killed(name: str, tmp_path: Path) -> None:
    """36 training examples make 3 steps in an epoch: the run is killed in the second."""
    whole = finish(name, tmp_path / "whole")
    losses = [entry["loss"] for entry in whole.record.history]
    assert losses[-1] < losses[0]
    step, calls = torch.optim.AdamW.step, iter(range(4))

    def killed(optimizer: torch.optim.AdamW) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        step(optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(name, tmp_path / "killed")
    torch.manual_seed(99)
    resumed = finish(name, tmp_path / "killed", resume=True)
    assert without_times(resumed.record) == without_times(whole.record)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], tensor), key


@pytest.mark.every(2)
@pytest.mark.parametrize("name", EACH)
def test_each_task_writes_a_model_that_is_loaded_and_exported(name: str, tmp_path: Path) -> None:
    """The exported program computes what the loaded model computes, for a batch of another size too."""
    run = Run(plan(name, epochs=1), tmp_path, resume=False)
    fit(run, Console(quiet=True))
    model: Any = models.load(tmp_path / "best.safetensors").eval()
    export_model(run, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (3, 7):
        inputs, targets = run.examples.inputs[:count], run.examples.targets[:count]
        arguments = run.task.arguments(model, inputs, targets)
        expected = model.predict(inputs) if name == "conv_attention" else model(*arguments)
        torch.testing.assert_close(program(*arguments), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_each_task_runs_in_bfloat16(name: str, tmp_path: Path) -> None:
    """With a learning rate of 0, so that losses differ by rounding alone: bfloat16 has three digits."""
    losses = []
    for amp in (True, False):
        run = Run(plan(name, amp=amp, epochs=1, lr=0.0), tmp_path, resume=False)
        assert fit(run, Console(quiet=True)) >= 0
        losses.append(run.record.history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


# --- Activation checkpointing -----------------------------------------------------------------------------------------


def stored(loss: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """A loss, and the bytes saved for its gradient, each storage counted once."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return loss(), sum(held.values())


@pytest.mark.every(6)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "unet")) for name, task in TASKS.items() if task.blocks],
)
def test_checkpointing_stores_less_and_changes_nothing(name: str, tmp_path: Path) -> None:
    task = small(name)
    given = task.data["few"]()
    runs = [Run(plan(name, checkpointing=asked), tmp_path, resume=False) for asked in (False, True)]
    sizes = []
    for run in runs:
        run.model.train()
        torch.manual_seed(7)
        loss, size = stored(partial(task.loss, run.model, given.inputs, given.targets))
        loss.backward()
        sizes.append(size)
    assert sizes[1] < sizes[0]
    plain, checkpointed = (run.model for run in runs)
    for (key, ours), (_, theirs) in zip(checkpointed.named_parameters(), plain.named_parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad), key
    for (key, ours), (_, theirs) in zip(checkpointed.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), key


# --- Slow: what it is all for -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "score", "reached"),
    [
        ("mlp", "accuracy", lambda score: score >= 95),
        pytest.param("resnet", "accuracy", lambda score: score >= 98, marks=pytest.mark.survey),
        pytest.param("unet", "mean IoU", lambda score: score >= 0.9, marks=pytest.mark.survey),
        pytest.param("vision_transformer", "accuracy", lambda score: score >= 95, marks=pytest.mark.survey),
        ("visual_attention", "accuracy", lambda score: score >= 95),
        ("conv_attention", "accuracy", lambda score: score >= 88),
        pytest.param("language_model", "bits a character", lambda score: score < 2.5, marks=pytest.mark.survey),
        ("sequence_to_sequence", "exact sequences", lambda score: score >= 99),
    ],
)
def test_each_task_gets_to_where_it_is_said_to_get(
    name: str, score: str, reached: Callable[[float], bool], tmp_path: Path
) -> None:
    """Run the command on one core; its time is CPU time, so that other load does not count."""
    before = os.times()
    result = subprocess.run(
        [sys.executable, "-m", "scripts.train", name, "--out", str(tmp_path), "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    after = os.times()
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"test {score} ")
    assert reached(float(last.removeprefix(f"test {score} ").split()[0].rstrip("%"))), last
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 10 * 60
