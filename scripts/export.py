"""The best model of a run as a file of torch.export, which runs without this library."""

import io
from pathlib import Path

import torch
from torch.export import Dim

from circuits import models
from scripts import checkpoint
from scripts.loop import Run


def export_model(run: Run, path: Path) -> str:
    """Write the best model of a run by torch.export, for any batch size, and return where.

    The best model of a split one is that in the folder.
    """
    best = run.held["best"] if run.plan is None else models.load(run.folder / checkpoint.BEST, device=run.device)
    model = run.task.exported(best).eval()
    inputs, targets = run.examples.inputs[:3], run.examples.targets[:3]
    arguments = run.task.arguments(model, inputs, targets)
    program = torch.export.export(model, arguments, dynamic_shapes=[{0: Dim("batch", min=1)} for _ in arguments])
    written = io.BytesIO()
    torch.export.save(program, written)
    checkpoint.put(path, lambda beside: beside.write_bytes(written.getvalue()))
    return f"exported {path}: torch.export.load({f'{path}'!r}).module()"
