"""Train a model of the zoo on real data: `python -m scripts.train mlp`; scripts.tasks lists the models and their data.

Prints the model's table, trains with AdamW, and saves the model after each epoch: `last.safetensors`, and
`best.safetensors` with the best validation score, which `models.load` reads. Ends with one line: the score of the best
model on the test split, which is evaluated once. The same arguments give the same loss curve on the same machine, also
if the run was interrupted and resumed. `torchrun --nproc-per-node 2 -m scripts.train NAME --mesh data=2` trains on
several processes (scripts.launch).
"""

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from circuits import CircuitError, trace
from scripts import checkpoint
from scripts.checkpoint import CheckpointError
from scripts.data import MissingData
from scripts.export import export_model
from scripts.loop import Run
from scripts.options import of_tasks, resolve_config
from scripts.own_data import DataError
from scripts.processes import MeshError, OneProcess, Processes
from scripts.report import curve, fit, use
from scripts.schedule import Schedule
from scripts.tasks import TASKS

HELP = {
    "data": "A data set by name, a folder that has a folder of images for each class, or a text file.",
    "epochs": "Number of epochs; with --resume, the new length of the run.",
    "batch_size": "Number of examples in a batch.",
    "lr": "Peak of the learning rate.",
    "weight_decay": "Weight decay of AdamW.",
    "schedule": "The learning rate after the warm-up: to zero as a cosine or a line, or constant.",
    "warmup": "Fraction of the steps with linear warm-up.",
    "clip": "Largest norm of the gradient; 0: not clipped.",
    "accumulate": "Number of batches whose gradients are averaged for one step.",
    "ema": "Decay of a moving average of the weights, which is then scored and saved; 0: none.",
    "image_size": "Side in pixels of the images of a folder, which are scaled and cropped to it.",
    "seed": "Random seed (split, initialization, shuffling).",
    "amp": "bfloat16 autocast.",
    "compile": "Compile the training step.",
    "checkpointing": "Activation checkpointing.",
}


def _option(name: str, **limits: Any) -> Any:
    """A command-line option whose default is that of the task, or of Config for all tasks."""
    return typer.Option(help=HELP[name], show_default=of_tasks(name), **limits)


def pick_device(name: str) -> str:
    """The type of the device called `name`; `auto` is the accelerator if there is one, otherwise the CPU."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return "cpu" if found is None else found.type
    try:
        return torch.zeros(0, device=name).device.type
    except (RuntimeError, AssertionError) as error:
        raise typer.BadParameter(f"no device {name} here: {str(error).splitlines()[0]}") from None


def _refuse(asked: Mapping[str, Any], export: Path | None) -> None:
    """Raise typer.BadParameter for options that cannot be: an unknown task or data set, a place without a folder."""
    name, data = asked["task"], asked["data"]
    if name not in TASKS:
        raise typer.BadParameter(f"no task is named {name}; there are {', '.join(TASKS)}")
    task = TASKS[name]
    if data is not None and data not in task.data and (task.reads is None or not Path(data).exists()):
        own = "" if task.reads is None else ", and there is no such file or folder"
        raise typer.BadParameter(f"{name} has no data named {data}{own}; there are {', '.join(task.data)}")
    if asked["checkpointing"] and not task.blocks:
        raise typer.BadParameter(f"{name} has no blocks for activation checkpointing")
    if asked["ema"] == 1:
        raise typer.BadParameter("an average with decay 1 never changes; --ema takes numbers below 1")
    if export is not None and (export.is_dir() or not export.absolute().parent.is_dir()):
        raise typer.BadParameter(f"--export {export} is a folder, or in a folder that does not exist")


@contextmanager
def _processes(asked: dict[str, Any], mesh: str | None, export: Path | None) -> Iterator[Processes]:
    """The processes that torchrun has started, or this one alone, which prints and raises for all of them."""
    is_launched = "TORCHELASTIC_RUN_ID" in os.environ
    if mesh is not None and not is_launched:
        command = f"torchrun --nproc-per-node 2 -m scripts.train {asked['task']} --mesh data=2"
        raise MeshError(f"--mesh is for processes that torchrun starts, as in {command}")
    with ExitStack() as stack:
        # One process does without what takes several seconds to import.
        launch = importlib.import_module("scripts.launch").Launch() if is_launched else None
        if launch is not None:
            stack.enter_context(launch.output_once())
        _refuse(asked, export)
        asked["device"] = pick_device(asked["device"])
        yield OneProcess() if launch is None else stack.enter_context(launch.processes(mesh, asked))


def _train(asked: dict[str, Any], folder: Path, processes: Processes, *, resume: bool, export: Path | None) -> None:
    """Train with these options and print everything; the errors are those of the options, data and checkpoint."""
    started = time.perf_counter()
    resume = resume or processes.resumes
    config = resolve_config(asked, processes.on_first(lambda: checkpoint.read(folder)) if resume else None)
    if config.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
    with ExitStack() as stack:
        processes.on_first(lambda: stack.enter_context(checkpoint.locked(folder)))
        run = Run(config, folder, resume=resume, processes=processes)
        if processes.is_first:
            print(trace(run.plain))
        if run.plan is not None:
            print(run.plan)
        score = fit(run, Console())
        processes.wait()
        if processes.is_first:
            _report(run, score, started, export)


def _report(run: Run, score: float, started: float, export: Path | None) -> None:
    """Print all that is said at the end of a run, which has a score on the test split and began at a time."""
    config, name, text = run.config, run.task.score.name, run.task.score.text
    print(curve(run.record, run.folder, name))
    if export is not None:
        print(export_model(run, export))
    print(use(run))
    epochs = f"{config.epochs} epoch{'s' * (config.epochs > 1)}"
    print(
        f"test {name} {text.format(score)} of {checkpoint.BEST} on {len(run.splits.test):,} unseen examples of"
        f" {config.data} ({epochs}, seed {config.seed}, {time.perf_counter() - started:.0f} s)"
    )


# None in place of an option: the task's, or that of the resumed run.
def main(
    task: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(TASKS)}.", metavar="NAME")],
    data: Annotated[str | None, _option("data")] = None,
    epochs: Annotated[int | None, _option("epochs", min=1)] = None,
    batch_size: Annotated[int | None, _option("batch_size", min=1)] = None,
    lr: Annotated[float | None, _option("lr", min=0)] = None,
    weight_decay: Annotated[float | None, _option("weight_decay", min=0)] = None,
    schedule: Annotated[Schedule | None, _option("schedule")] = None,
    warmup: Annotated[float | None, _option("warmup", min=0, max=1)] = None,
    clip: Annotated[float | None, _option("clip", min=0)] = None,
    accumulate: Annotated[int | None, _option("accumulate", min=1)] = None,
    ema: Annotated[float | None, _option("ema", min=0, max=1)] = None,
    image_size: Annotated[int | None, _option("image_size", min=1)] = None,
    seed: Annotated[int | None, _option("seed")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    amp: Annotated[bool | None, _option("amp")] = None,
    compile: Annotated[bool | None, _option("compile")] = None,
    checkpointing: Annotated[bool | None, _option("checkpointing")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the state in the folder.")] = False,
    mesh: Annotated[str | None, typer.Option(help="Processes by mesh axis, as in data=2,tensor=2.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the best model there by torch.export (model.pt2).")] = None,
) -> None:
    """Train a model and print its score on a held-out test set.

    Without --resume training starts from scratch; the run in the folder is replaced after the first epoch. With it,
    only --epochs may differ. Two runs cannot share a folder: the second is refused. With --mesh, the processes that
    torchrun starts train one model: `data` divides each batch, `tensor` the model, `sequence` each text.
    """
    asked = dict(locals())
    for name in ("out", "resume", "mesh", "export"):
        del asked[name]
    asked["schedule"] = None if schedule is None else schedule.value
    try:
        with _processes(asked, mesh, export) as processes:
            _train(asked, Path("runs") / task if out is None else out, processes, resume=resume, export=export)
    except (MissingData, CheckpointError, DataError, MeshError, CircuitError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
