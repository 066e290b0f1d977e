# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""What torchrun's processes are to be, without torchrun: the mesh, the options, parts of batches, and one voice."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from typer import Typer
from typer.testing import CliRunner

from scripts import checkpoint, train
from scripts.checkpoint import CheckpointError
from scripts.distributed import Group
from scripts.launch import Launch, _checked, _refuse, parse_mesh
from scripts.loop import Run
from scripts.processes import MeshError
from scripts.tasks import TASKS
from tests.scripts.test_distributed import BATCHES, Launched, finish, state
from tests.scripts.toy import PLAN, files, kill, saved, toy_task, without_times

cli = Typer()
cli.command()(train.main)


@pytest.mark.parametrize(
    "text", ["", "data", "data=", "data=0", "data=-2", "data=2,data=2", "=2", "data=2,", "2", "a b=2"]
)
def test_a_mesh_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(MeshError, match="--mesh takes sizes by name, once each, such as data=2,tensor=2, not"):
        parse_mesh(text)


def test_a_mesh_has_a_place_for_each_process() -> None:
    assert [*_checked("tensor=3, data=2", 6).items()] == [("tensor", 3), ("data", 2)]
    with pytest.raises(MeshError, match="--mesh data=2,tensor=2 has places for 4 processes; torchrun has started 2"):
        _checked("data=2,tensor=2", 2)
    with pytest.raises(MeshError, match="torchrun has started 2 processes; say what they share: --mesh data=2"):
        _checked(None, 2)


def test_processes_are_started_by_torchrun(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["mlp", "--mesh", "data=2", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "torchrun starts, as in torchrun --nproc-per-node 2 -m scripts.train mlp --mesh data=2" in result.output


@pytest.mark.parametrize(
    ("option", "sizes", "words"),
    [
        ("compile", {"data": 2}, "--compile is for one process"),
        ("checkpointing", {"data": 2, "tensor": 2}, "alone: a"),
        ("checkpointing", {"sequence": 2}, "alone: a"),
    ],
)
def test_options_for_one_process_are_refused(option: str, sizes: dict[str, int], words: str) -> None:
    asked = {"task": "language_model", "compile": False, "checkpointing": False}
    with pytest.raises(MeshError, match=words):
        _refuse({**asked, option: True}, sizes)
    _refuse({**asked, "checkpointing": True}, {"data": 2})


def group(sizes: dict[str, int], rank: int = 0) -> Group:
    """Processes without a network: the one at a place of a mesh for data."""
    mesh: Any = SimpleNamespace(
        mesh_dim_names=(*sizes,), shape=(*sizes.values(),), get_local_rank=lambda name: rank
    )  # fmt: skip
    return Group(mesh, Launched(rank))


@pytest.mark.parametrize(
    ("name", "axis", "words"),
    [
        ("mlp", "tensor", "uses: data"),
        ("conv_attention", "tensor", "uses: none: it trains on one"),
        ("vision_transformer", "sequence", "uses: data, tensor$"),
        ("sequence_to_sequence", "tensor", "uses: data, sequence$"),
    ],
)
def test_a_mesh_axis_that_a_task_does_not_use_is_refused(name: str, axis: str, words: str) -> None:
    with pytest.raises(MeshError, match=f"no axis to split over {axis}; mesh axes that it {words}"):
        group({axis: 2}).split(TASKS[name], [nn.Linear(1, 1)], ())
    with pytest.raises(MeshError, match=words):  # before there is a folder
        _refuse({"task": name, "compile": False, "checkpointing": False}, {axis: 2})


def test_the_parts_of_a_batch_are_the_batch() -> None:
    for count in range(1, 20):
        for parts in range(1, 6):
            shares = [group({"data": parts}, rank).share(count) for rank in range(parts)]
            rows = [torch.arange(count)[own][:size] for own, size in shares]
            assert torch.equal(torch.cat(rows), torch.arange(count))
            assert max(map(len, rows)) - min(map(len, rows)) <= 1
            assert all(len(torch.arange(count)[own]) for own, _ in shares)


def test_random_numbers_of_a_part_are_its_own_and_disturb_no_others() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    drawn = []
    for rank, place in ((0, 5), (1, 5), (0, 6), (0, 5)):
        torch.manual_seed(1)
        with group({"data": 2}, rank).own_random_numbers(3, place):
            drawn.append(torch.rand(3))
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(drawn[0], drawn[3])
    assert len({tuple(each.tolist()) for each in (*drawn, expected)}) == 4


def launch(rank: int, store: Any, restarts: int = 0) -> Launch:
    found = object.__new__(Launch)
    found.rank, found.count, found.store, found.restarts = rank, 2, store, restarts
    return found


def test_the_first_process_alone_prints_and_the_first_error_is_the_only_one(capsys: pytest.CaptureFixture[str]) -> None:
    store = dist.HashStore()
    for rank in range(2):
        with launch(rank, store).output_once():
            print("rank", rank)
    assert capsys.readouterr().out == "rank 0\n"
    with pytest.raises(CheckpointError, match="of rank 1"), launch(1, store).output_once():
        raise CheckpointError("of rank 1")
    with pytest.raises(SystemExit), launch(0, store).output_once():
        raise RuntimeError("gloo: connection closed by peer")
    with pytest.raises(MeshError, match="was lost"), launch(0, store, restarts=1).output_once():
        raise RuntimeError("gloo: connection closed by peer")


def test_a_restart_knows_whether_a_checkpoint_was_saved() -> None:
    store = dist.HashStore()
    assert not launch(0, store, restarts=1).has_saved
    launch(0, store).note_saved()
    assert launch(1, store, restarts=1).has_saved
    assert not launch(1, store).has_saved


# --- A run on one process, by the code of several ---------------------------------------------------------------------


@pytest.fixture
def one() -> Iterator[Group]:
    """A mesh of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with toy_task(BATCHES):
            yield Group(init_device_mesh("cpu", (1,), mesh_dim_names=("data",)), Launched(0))
    finally:
        dist.destroy_process_group()


def assert_same_as_alone(folder: Path, run: Run) -> None:
    """The files in a folder are, to the last bit, those of a run without a mesh; the state may be in a folder."""
    assert without_times(checkpoint.read(folder)) == without_times(run.record)
    ours, theirs = state(folder), state(run.folder)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in (checkpoint.BEST, checkpoint.LAST):
        assert saved(folder / name) == saved(run.folder / name)
    slots = [{path.name.partition(".")[0] for path in each.glob("state-*")} for each in (folder, run.folder)]
    assert [len(each) for each in slots] == [1, 1]
    ours, theirs = ({*files(each)} - {"state-b", "state-b.safetensors"} for each in (folder, run.folder))
    assert ours == theirs


@pytest.mark.slow
def test_a_mesh_of_one_process_is_one_process(tmp_path: Path, one: Group) -> None:
    finish(PLAN, tmp_path / "split", group=one)
    assert_same_as_alone(tmp_path / "split", finish(PLAN, tmp_path / "alone"))


# Each of two epochs and the test put four files: record, best, last, log.
MOMENTS = [(Path, "replace", call) for call in range(12)] + [(checkpoint, "commit", call) for call in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name", "call"), MOMENTS)
def test_a_kill_while_the_state_is_written_leaves_one_to_resume(
    tmp_path: Path, one: Group, place: Any, name: str, call: int
) -> None:
    plan = PLAN.__class__(**{**vars(PLAN), "epochs": 2})
    kill(place, name, call, lambda: finish(plan, tmp_path / "run", group=one))
    if (tmp_path / "run" / checkpoint.RECORD).exists():
        checkpoint.verify(tmp_path / "run")
        torch.manual_seed(99)
        finish(plan, tmp_path / "run", resume=True)  # without the others
    else:
        finish(plan, tmp_path / "run")
    assert_same_as_alone(tmp_path / "run", finish(plan, tmp_path / "whole"))
