"""What training makes small, and what it reports: for each kind of answer a loss and a score.

Each takes a model, some inputs and their targets, in a model's own words: `logits`, and `generate` where it writes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def mean(tallies: Tensor) -> Tensor:
    """Of one number an example."""
    return tallies.mean()


@dataclass(frozen=True)
class Score:
    """How well a model does on examples it did not learn from."""

    name: str
    text: str
    """How the number is written, as `str.format` takes it."""
    tally: Callable[[Any, Tensor, Tensor], Tensor]
    """Of model, inputs and targets: what is noted for each example, the first axis counting the examples."""
    total: Callable[[Tensor], Tensor] = mean
    """Of what was noted for all examples: one number."""


def smoothed_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of a classifier's logits; a tenth of each target is spread over all classes (Szegedy et al. 2016)."""
    return F.cross_entropy(model.logits(inputs), targets, label_smoothing=0.1)


def correct(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """1 where a classifier's likeliest class is the target, else 0; the mean is accuracy."""
    return (model.logits(inputs).argmax(-1) == targets).float()


def pixel_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of the class of every pixel."""
    return F.cross_entropy(model.logits(inputs), targets)


def overlap(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """For each class, at how many pixels answer and target both show it, and at how many one of them does."""
    logits = model.logits(inputs)
    kinds = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    answered, right = logits.argmax(1, keepdim=True) == kinds, targets[:, None] == kinds
    return torch.stack([(answered & right).sum((-1, -2)), (answered | right).sum((-1, -2))], -1)


def mean_overlap(tallies: Tensor) -> Tensor:
    """The mean over classes of intersection over union, both over all pixels; a class that nothing shows is left out.

    >>> mean_overlap(torch.tensor([[[3, 4], [0, 1], [0, 0]], [[3, 4], [1, 1], [0, 0]]]))
    tensor(0.6250, dtype=torch.float64)
    """
    both, either = tallies.double().sum(0).unbind(-1)
    return (both / either)[either > 0].mean()


def character_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of every character as the next, given those before it."""
    return F.cross_entropy(model.logits(inputs).flatten(0, 1), targets.flatten())


def bits(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """How many bits a character of each text takes, written as the model foresees it."""
    logits = model.logits(inputs).float()
    return F.cross_entropy(logits.mT, targets, reduction="none").mean(-1) / math.log(2)


def token_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of every token of the answer, given the source and the right tokens before it; a token more stands first."""
    logits = model.logits(inputs, _started(model, targets)[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def exact(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the model writes the whole answer right, taking the likeliest token each time, else 0."""
    start = _started(model, targets)[:, :1]
    return (model.generate(inputs, start, targets.shape[-1])[:, 1:] == targets).all(-1).float()


def _started(model: Any, targets: Tensor) -> Tensor:
    """Targets after the token that starts an answer, the last of the vocabulary."""
    return F.pad(targets, (1, 0), value=model.vocabulary - 1)


ACCURACY = Score("accuracy", "{:.2%}", correct)
OVERLAP = Score("mean IoU", "{:.3f}", overlap, mean_overlap)
BITS = Score("bits a character", "{:.3f}", bits)
EXACT = Score("exact sequences", "{:.2%}", exact)
