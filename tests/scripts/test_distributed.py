"""Runs on 2 and 4 processes that talk by gloo, beside runs on one."""

import fcntl
import json
import os
import shutil
import socket
import traceback
from collections.abc import Iterator
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import spawn

import models
from models.language_model import LanguageModel
from models.sequence_to_sequence import SequenceToSequence
from scripts import checkpoint, sharded_tensors
from scripts.checkpoint import Record
from scripts.data import Examples, sequences
from scripts.distributed import Group
from scripts.loop import Run
from scripts.options import Config
from scripts.report import fit
from scripts.tasks import TASKS, Task
from tests.scripts.tiny import TINY, TINY_PLAN
from tests.scripts.toy import PLAN, TOY

pytestmark = pytest.mark.slow


def reversed_rows() -> Examples:
    examples = sequences("reversing", lambda rows: rows.flip(-1))()
    which = torch.arange(50)
    return Examples(
        "few", examples.inputs[which], examples.targets[which], examples.classes, examples.sources[which]
    )  # fmt: skip


SEQUENCES = replace(
    TASKS["sequence_to_sequence"],
    data={"few": reversed_rows},
    model=lambda examples: SequenceToSequence(
        examples.classes + 1, m=8, k=4, h=2, f=16, encoder_depth=2, decoder_depth=2, dropout=0.0
    ).double(),
)


def rows() -> Examples:
    """As many rows of 12 symbols, each of which is the next of the one before it, or drawn."""
    source = torch.Generator().manual_seed(3)
    steps = torch.where(torch.rand(50, 13, generator=source) < 0.7, 1, torch.randint(6, (50, 13), generator=source))
    symbols = steps.cumsum(-1) % 6
    return Examples("rows", symbols[:, :-1], symbols[:, 1:], 6, torch.arange(50))


TEXTS = replace(
    TASKS["language_model"],
    data={"rows": rows},
    reads=None,
    model=lambda examples: LanguageModel(examples.classes, m=8, k=4, h=2, f=16, depth=2, learned_positions=20).double(),
)
BATCHES = replace(TOY, axes="b x y", split={"b": "data"})
"""With dropout, statistics of batches and tied weights."""
OWN: dict[str, Task] = {"tiny": TINY, "toy": BATCHES, "sequences": SEQUENCES, "texts": TEXTS}
TEXTS_PLAN = Config("texts", "rows", epochs=2, batch_size=8, lr=1e-2, weight_decay=0.05)
SEQUENCES_PLAN = Config("sequences", "few", epochs=2, batch_size=8, lr=1e-2, weight_decay=0.05)
OPTIONS: dict[str, Any] = {"clip": 0.05, "accumulate": 2, "ema": 0.9, "schedule": "linear"}
Case = tuple[dict[str, int], Config]
CASES: dict[str, Case] = {
    "data": ({"data": 2}, TINY_PLAN),
    "tensor": ({"tensor": 2}, TINY_PLAN),
    "data, options": ({"data": 2}, replace(TINY_PLAN, **OPTIONS, checkpointing=True)),
    "tensor, options": ({"tensor": 2}, replace(TINY_PLAN, **OPTIONS)),
    "a batch of one": ({"data": 2}, replace(TINY_PLAN, batch_size=22)),
    "sequences": ({"data": 2}, SEQUENCES_PLAN),
    "parts of sequences": ({"sequence": 2}, SEQUENCES_PLAN),
    "parts of texts": ({"sequence": 2}, TEXTS_PLAN),
    "parts of texts, options": ({"sequence": 2}, replace(TEXTS_PLAN, **OPTIONS)),
    "four": ({"data": 2, "tensor": 2}, replace(TINY_PLAN, epochs=2, **OPTIONS)),
    "four, sequences": ({"data": 2, "sequence": 2}, SEQUENCES_PLAN),
    "four, texts": ({"data": 2, "sequence": 2}, replace(TEXTS_PLAN, **OPTIONS)),
    "four, heads of texts": ({"sequence": 2, "tensor": 2}, TEXTS_PLAN),
}


@pytest.fixture(autouse=True)
def own_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, task in OWN.items():
            patch.setitem(TASKS, name, task)
        yield


def finish(plan: Config, folder: Path, resume: bool = False, group: Group | None = None) -> Run:
    run = Run(plan, folder, resume=resume, processes=group)
    fit(run, Console(quiet=True))
    run.processes.wait()
    return run


class Launched:
    """A launch that is no restart."""

    has_saved = False

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def note_saved(self) -> None:
        pass


Job = tuple[str, dict[str, int], Config, bool]
"""A folder, a mesh, the options of a run, and whether it is resumed."""


def worker(rank: int, world: int, port: int, folder: str, jobs: list[Job]) -> None:
    """Finish some runs on one rank, and write what it has seen of each into its folder."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}")
    torch.set_num_threads(1)
    TASKS.update(OWN)  # pyright: ignore[reportAttributeAccessIssue]
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        for name, shape, plan, resume in jobs:
            mesh = init_device_mesh("cpu", (*shape.values(),), mesh_dim_names=(*shape,))
            run = finish(plan, Path(folder) / name, resume, Group(mesh, Launched(rank)))
            statistics = [each.tolist() for each in run.model.buffers()] if plan.task == "toy" else []
            (Path(folder) / name / f"rank {rank}").write_text(json.dumps([asdict(run.record), statistics]))
    except BaseException:
        (Path(folder) / f"failed {rank}").write_text(traceback.format_exc())
        raise
    finally:
        dist.destroy_process_group()


def on_processes(world: int, folder: Path, jobs: list[Job]) -> None:
    """Finish some runs on so many processes; all of them have seen the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(worker, (world, port, f"{folder}", jobs), world)
    for name, *_ in jobs:
        seen = {(folder / name / f"rank {rank}").read_text() for rank in range(world)}
        assert len(seen) == 1, name


def numbers(record: Record) -> list[float]:
    """All numbers of a record but the seconds; NaN of a score that is not there yet."""
    curve = [value for entry in record.history for name, value in entry.items() if name != "seconds"]
    return [*curve, record.best, float("nan") if record.test is None else record.test]


def assert_same_curve(record: Record, other: Record) -> None:
    """Two runs have the same numbers, within the tolerance of sums of float32, in which losses are added up."""
    assert numbers(record) == pytest.approx(numbers(other), rel=1e-6, nan_ok=True)


def assert_same_models(folder: Path, other: Path) -> None:
    for name in (checkpoint.BEST, checkpoint.LAST):
        ours, theirs = (models.load(each / name) for each in (folder, other))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whole."""
    checkpoint.verify(folder)
    return sharded_tensors.read(folder / json.loads((folder / checkpoint.RECORD).read_text())["tensors"])


STEADY = replace(PLAN, schedule="constant", warmup=0.0)


def of_all_workers(factory: pytest.TempPathFactory, world: int, jobs: list[Job]) -> Path:
    """A folder with some runs on so many processes, which one of pytest's workers starts while the others wait."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{world} processes"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "finished").exists():
            on_processes(world, folder, jobs)
            (folder / "finished").touch()
    return folder


def jobs_on(world: int, session: pytest.Session) -> list[Job]:
    """The cases that this session tests, and "four", which another test reads."""
    items = [each for each in session.items if isinstance(each, pytest.Function) and hasattr(each, "callspec")]
    names = {"four", *[each.callspec.params.get("name") for each in items]}
    return [(name, *CASES[name], False) for name in CASES if name in names and prod(CASES[name][0].values()) == world]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with runs of two processes."""
    jobs: list[Job] = [("whole", {"data": 2}, STEADY, False), ("halves", {"data": 2}, replace(STEADY, epochs=2), False)]
    jobs = [*jobs_on(2, request.session), *jobs, ("halves", {"data": 2}, STEADY, True)]
    return of_all_workers(tmp_path_factory, 2, jobs)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with runs of four processes."""
    return of_all_workers(tmp_path_factory, 4, jobs_on(4, request.session))


@pytest.mark.every(1, 2)
@pytest.mark.parametrize("name", CASES)
def test_processes_have_the_curve_of_one(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    folder = request.getfixturevalue("pair" if prod(CASES[name][0].values()) == 2 else "four") / name
    run = finish(CASES[name][1], tmp_path)
    assert_same_curve(checkpoint.read(folder), run.record)
    assert_same_models(folder, tmp_path)
    torch.testing.assert_close(state(folder), state(tmp_path))


def test_dropout_and_statistics_of_parts_are_the_same_after_a_resumption(tmp_path: Path, pair: Path) -> None:
    """They are others than those of one process; `on_processes` compares the statistics of all processes."""
    resumed, whole = (checkpoint.read(pair / name) for name in ("halves", "whole"))
    assert numbers(resumed) == numbers(whole)
    ours, theirs = state(pair / "halves"), state(pair / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert numbers(finish(STEADY, tmp_path).record) != numbers(whole)


def test_what_four_processes_save_two_and_one_and_a_module_load(tmp_path: Path, four: Path) -> None:
    """A run of two epochs is resumed for another one on two meshes, and on one process."""
    longer = replace(CASES["four"][1], epochs=3)
    whole = state(four / "four")
    for name, kind in ((checkpoint.BEST, "best"), (checkpoint.LAST, "average")):
        loaded = models.load(four / "four" / name).state_dict()
        assert all(torch.equal(tensor, whole[f"{kind}.{key}"]) for key, tensor in loaded.items())
    for name in ("data", "tensor", "alone"):
        shutil.copytree(four / "four", tmp_path / name)
    finish(CASES["four"][1], tmp_path / "one")
    finish(longer, tmp_path / "one", resume=True)
    on_processes(2, tmp_path, [(name, {name: 2}, longer, True) for name in ("data", "tensor")])
    finish(longer, tmp_path / "alone", resume=True)
    for name in ("data", "tensor", "alone"):
        assert_same_curve(checkpoint.read(tmp_path / name), checkpoint.read(tmp_path / "one"))
        assert_same_models(tmp_path / name, tmp_path / "one")
