"""Runs under torchrun whose processes are killed by SIGKILL, beside runs that are left alone.

`pytest -m kills` kills a random process at ten random moments, and all of them at ten.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from scripts import checkpoint
from scripts.checkpoint import Record
from scripts.tasks import TASKS
from tests.scripts.test_distributed import assert_same_curve, finish, state
from tests.scripts.tiny import TINY, TINY_PLAN

Found = TypeVar("Found")
ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds to wait for something that takes a few."""
LAUNCHED: list["subprocess.Popen[bytes]"] = []


class Torchrun:
    """`torchrun -m scripts.train` of the small task on two processes."""

    def __init__(self, folder: Path, *options: str, mesh: str = "data=2", restarts: int = 0) -> None:
        self.folder, self.printed = folder, folder.parent / f"{folder.name}.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", f"{port}"]
        command += ["--max-restarts", f"{restarts}", "--monitor-interval", "0.1", "-m", "tests.scripts.tiny", "tiny"]
        command += ["--mesh", mesh, "--device", "cpu", "--out", f"{folder}", "--seed", f"{TINY_PLAN.seed}", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}
        with self.printed.open("a") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        LAUNCHED.append(self.process)

    def workers(self) -> list[int]:
        """The processes that torchrun has started, once there are two."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return wait_for(lambda: found if len(found := [*map(int, children.read_text().split())]) == 2 else None, self)

    def kill_all(self) -> None:
        """Kill torchrun and its processes, which are in sessions of their own, at once."""
        for process in (*self.workers(), self.process.pid):
            os.kill(process, signal.SIGKILL)
        self.process.wait()

    def end(self) -> str:
        """What all launches into the folder have printed, after this one has ended well."""
        assert self.process.wait(PATIENCE) == 0, self.printed.read_text()
        return self.printed.read_text()


def wait_for(look: Callable[[], Found | None], launch: Torchrun) -> Found:
    """What `look` returns once that is not None, while torchrun runs."""
    until = time.monotonic() + PATIENCE
    while (found := look()) is None:
        assert launch.process.poll() is None, launch.printed.read_text()
        assert time.monotonic() < until, launch.printed.read_text()
        time.sleep(0.01)
    return found


def epochs_of(folder: Path) -> int:
    """The number of epochs of the checkpoint in a folder; 0 without one."""
    return len(record.history) if (record := saved(folder)) else 0


def saved(folder: Path) -> Record | None:
    """The record of the checkpoint in a folder, if there is one; it can always be read."""
    return checkpoint.read(folder) if (folder / checkpoint.RECORD).exists() else None


def wait_for_epochs(launch: Torchrun, count: int) -> None:
    wait_for(lambda: True if epochs_of(launch.folder) >= count else None, launch)


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The small task; what a failed test has started is ended."""
    monkeypatch.setitem(TASKS, "tiny", TINY)
    yield
    while LAUNCHED:
        LAUNCHED.pop().terminate()


def alone(folder: Path, epochs: int) -> Record:
    """The record of a run on one process that nothing disturbs."""
    return finish(replace(TINY_PLAN, epochs=epochs), folder).record


@pytest.mark.slow
def test_a_killed_process_is_started_again_with_the_others_and_the_curve_goes_on(tmp_path: Path) -> None:
    """There is an older run in the folder, which is not gone on with; each epoch is printed once."""
    finish(replace(TINY_PLAN, seed=7, epochs=1), tmp_path / "run")
    launch = Torchrun(tmp_path / "run", "--epochs", "6", restarts=2)
    os.kill(launch.workers()[1], signal.SIGKILL)  # before anything is saved
    wait_for_epochs(launch, 2)
    os.kill(launch.workers()[0], signal.SIGKILL)
    printed = launch.end()
    assert_same_curve(checkpoint.read(tmp_path / "run"), alone(tmp_path / "one", 6))
    assert printed.count("test accuracy") == 1
    assert printed.count("epoch   1/6") == 1


@pytest.mark.slow
def test_after_a_kill_of_all_a_run_resumes_on_another_mesh_and_two_cannot_share_its_folder(tmp_path: Path) -> None:
    launch = Torchrun(tmp_path / "run", "--epochs", "5")
    wait_for_epochs(launch, 1)
    launch.kill_all()
    state(tmp_path / "run")
    with checkpoint.locked(tmp_path / "run"):
        second = Torchrun(tmp_path / "run", "--resume")
        assert second.process.wait(PATIENCE) != 0
    printed = second.printed.read_text()
    assert printed.count(f"error: another run is writing to {tmp_path / 'run'}") == 1
    assert "Traceback (most" not in printed.partition("error: another run")[0]
    Torchrun(tmp_path / "run", "--resume", mesh="tensor=2").end()
    assert_same_curve(checkpoint.read(tmp_path / "run"), alone(tmp_path / "one", 5))


EPOCHS, KILLS = 50, 10


def wait_for_a_moment(launch: Torchrun, draw: random.Random) -> None:
    """Wait until a random moment: of the start, of a third of the times, or else of the epoch after the next one."""
    before, record = epochs_of(launch.folder), saved(launch.folder)
    launch.workers()
    if draw.random() < 1 / 3:
        time.sleep(draw.uniform(0, 10))
        return
    wait_for_epochs(launch, before + 1)
    seconds = record.history[-1]["seconds"] if record else 1.0
    time.sleep(draw.uniform(0, 1.2 * seconds))


@pytest.mark.kills
def test_a_process_killed_at_ten_moments(tmp_path: Path) -> None:
    draw = random.Random(0)
    launch = Torchrun(tmp_path / "run", "--epochs", f"{EPOCHS}", restarts=KILLS)
    for number in range(KILLS):
        wait_for_a_moment(launch, draw)
        workers = launch.workers()
        os.kill(draw.choice(workers), signal.SIGKILL)
        print("kill", number, "at epoch", epochs_of(launch.folder))
        wait_for(lambda gone=workers: True if not {*gone} & {*launch.workers()} else None, launch)
    launch.end()
    assert_same_curve(checkpoint.read(tmp_path / "run"), alone(tmp_path / "one", EPOCHS))


@pytest.mark.kills
def test_all_processes_killed_at_ten_moments(tmp_path: Path) -> None:
    """Each time the state that is left is read as a whole, and then resumed, on one mesh and on another."""
    draw = random.Random(1)
    for number in range(KILLS):
        resume = ["--resume"] if saved(tmp_path / "run") else ["--epochs", f"{EPOCHS}"]
        launch = Torchrun(tmp_path / "run", *resume, mesh=draw.choice(["data=2", "tensor=2"]))
        wait_for_a_moment(launch, draw)
        launch.kill_all()
        print("kill", number, "at epoch", epochs_of(tmp_path / "run"))
        if saved(tmp_path / "run"):
            state(tmp_path / "run")
    Torchrun(tmp_path / "run", "--resume").end()
    assert_same_curve(checkpoint.read(tmp_path / "run"), alone(tmp_path / "one", EPOCHS))
