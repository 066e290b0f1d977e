"""Schedules of the learning rate: linear warm-up to the peak, then one of three ways to go on."""

import math
from enum import StrEnum


class Schedule(StrEnum):
    """How the learning rate goes on after the warm-up: to zero as a cosine or a line, or constant."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


def rate(step: int, steps: int, schedule: str = Schedule.cosine, warmup: float = 0.1) -> float:
    """The learning rate of a step as a fraction of its peak.

    Args:
        step: The number of the step, from 0.
        steps: The number of steps of the whole run.
        schedule: The name of a Schedule.
        warmup: The fraction of the steps with linear warm-up, from 0 to 1; the first step is always one of them.

    >>> [round(rate(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    >>> [rate(step, 4, "linear", warmup=0) for step in range(4)]
    [1.0, 1.0, 0.6666666666666667, 0.33333333333333337]
    """
    warm = max(1, int(steps * warmup))
    if step < warm:
        return (step + 1) / warm
    part = (step - warm) / (steps - warm)
    match Schedule(schedule):
        case Schedule.cosine:
            return (1 + math.cos(math.pi * part)) / 2
        case Schedule.linear:
            return 1 - part
        case Schedule.constant:
            return 1.0
