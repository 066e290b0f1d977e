"""A vision transformer that trains in a second, in float64, as a task for several processes.

`torchrun -m tests.scripts.tiny tiny --mesh data=2` is `scripts.train` with that task.
"""

from dataclasses import replace

import torch
import typer

from models.vision_transformer import VisionTransformer
from scripts import train
from scripts.data import Examples
from scripts.options import Config
from scripts.tasks import TASKS


def noise() -> Examples:
    """75 images, of which 45 are for training: not a whole number of batches, nor of pairs."""
    source = torch.Generator().manual_seed(5)
    images = torch.rand(75, 1, 8, 8, generator=source, dtype=torch.float64)
    return Examples("noise", images, torch.randint(3, (75,), generator=source), 3, torch.arange(75))


def transformer(examples: Examples) -> VisionTransformer:
    return VisionTransformer(
        8, 2, m=16, k=4, h=4, f=32, depth=2, classes=3, in_channels=1, class_token=False
    ).double()  # fmt: skip


TINY = replace(
    TASKS["vision_transformer"], data={"noise": noise}, reads=None, model=transformer, epochs=4, batch_size=16, lr=1e-2
)
TINY_PLAN = Config("tiny", "noise", epochs=4, batch_size=16, lr=1e-2, weight_decay=0.05, seed=3)

if __name__ == "__main__":
    torch.set_num_threads(1)
    TASKS["tiny"] = TINY  # pyright: ignore[reportIndexIssue]
    typer.run(train.main)
