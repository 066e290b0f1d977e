"""Losses and scores for each kind of task.

Each function takes a model, inputs and targets, and calls the model, which returns logits, or its `generate`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def mean(tallies: Tensor) -> Tensor:
    """The mean of one number for each example."""
    return tallies.mean()


@dataclass(frozen=True)
class Score:
    """A score on examples that were not used for training."""

    name: str
    text: str
    """The format of the number, for `str.format`."""
    tally: Callable[[Any, Tensor, Tensor], Tensor]
    """Counts for each example, from (model, inputs, targets); the first axis is the example."""
    total: Callable[[Tensor], Tensor] = mean
    """Reduces the counts of all examples to one number."""
    falls: bool = False
    """Whether a lower number is better."""


def smoothed_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of a classifier's logits with label smoothing of 0.1 (Szegedy et al. 2016)."""
    return F.cross_entropy(model(inputs), targets, label_smoothing=0.1)


def correct(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the class with the largest logit is the target, else 0; the mean is the accuracy."""
    return (model(inputs).argmax(-1) == targets).float()


def pixel_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the class of every pixel."""
    return F.cross_entropy(model(inputs), targets)


def overlap(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """The intersection and the union of prediction and target in pixels, for each class."""
    logits = model(inputs)
    kinds = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    predicted, right = logits.argmax(1, keepdim=True) == kinds, targets[:, None] == kinds
    return torch.stack([(predicted & right).sum((-1, -2)), (predicted | right).sum((-1, -2))], -1)


def mean_overlap(tallies: Tensor) -> Tensor:
    """The mean intersection over union of the classes, over all pixels; classes that never occur are left out.

    >>> mean_overlap(torch.tensor([[[3, 4], [0, 1], [0, 0]], [[3, 4], [1, 1], [0, 0]]]))
    tensor(0.6250, dtype=torch.float64)
    """
    both, either = tallies.double().sum(0).unbind(-1)
    return (both / either)[either > 0].mean()


def character_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of every next character, given those before it."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def bits(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Bits per character of each text: the cross entropy in base 2."""
    logits = model(inputs).float()
    return F.cross_entropy(logits.mT, targets, reduction="none").mean(-1) / math.log(2)


def token_cross_entropy(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of every target token, given the source and the target tokens before it (teacher forcing)."""
    logits = model(inputs, started(model, targets)[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def exact(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """1 where greedy decoding generates the whole target sequence, else 0."""
    start = started(model, targets)[:, :1]
    return (model.generate(inputs, start, targets.shape[-1])[:, 1:] == targets).all(-1).float()


def started(model: Any, targets: Tensor) -> Tensor:
    """The targets after a start token, which is the last token of the vocabulary."""
    return F.pad(targets, (1, 0), value=model.vocabulary - 1)


ACCURACY = Score("accuracy", "{:.2%}", correct)
OVERLAP = Score("mean IoU", "{:.3f}", overlap, mean_overlap)
BITS = Score("bits a character", "{:.3f}", bits, falls=True)
EXACT = Score("exact sequences", "{:.2%}", exact)
