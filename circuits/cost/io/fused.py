"""Fused attention as the operations of its definition: scores, a mask, a softmax and a weighted sum."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from circuits.cost.io.steps import Program, Step, Tensor
from circuits.diagram import Box, Call, Struct, Wire
from circuits.naming import Operation
from circuits.verbs import einsum

SCORES, MIXED = "... y k, ... x k -> ... y x", "... y x, ... x d -> ... y d"


def unfused(program: Program) -> Program:
    """Return a program with fused attention replaced by its definition."""
    steps = [each for at, step in enumerate(program.steps) for each in definition_of(step, -1 - 3 * at)]
    return replace(program, steps=tuple(steps))


def definition_of(step: Step, free: int) -> list[Step]:
    """Return the operations of a fused attention; any other step, or one with grouped heads, as it is.

    The kernel scales the queries and multiplies by the mask's dropout on the fly; neither needs memory of its own.

    Args:
        step: The operation.
        free: A number that no tensor has, for the scores; nor has any the two numbers below it.
    """
    call: Any = step.box.call
    if call.function is not F.scaled_dot_product_attention or len(step.inputs) not in (3, 4):
        return [step]
    kwargs = dict(zip(call.kwargs.keys, call.kwargs.parts, strict=True))
    if Operation(call.function, call.args.parts, kwargs, call.result).get(8, "enable_gqa", False):
        return [step]
    query, key, value = step.inputs[:3]
    lead = {name for axis in query.axes[:-2] for name in axis}
    distinct = set(key.axes[-2]).isdisjoint({*lead, *query.axes[-2]})
    axes = (*query.axes[:-1], key.axes[-2] if distinct else ())
    scores = Tensor(free, axes, (*query.sizes[:-1], key.sizes[-2]), query.mapped, "scores")
    masked, weight = replace(scores, number=free - 1), replace(scores, number=free - 2)
    steps = [_step(step, einsum, (query, key), scores, SCORES)]
    if len(step.inputs) == 4:
        steps.append(_step(step, torch.add, (scores, step.inputs[3]), masked))
    last = steps[-1].outputs[0]
    return [
        *steps,
        _step(step, torch.softmax, (last,), weight, -1),
        _step(step, einsum, (weight, value), step.outputs[0], MIXED),
    ]


def _step(step: Step, function: Any, inputs: tuple[Tensor, ...], output: Tensor, *rest: Any) -> Step:
    """Return one operation of the definition, at the line of the fused one."""
    args = Struct(tuple, (), (*[Wire(tensor.number) for tensor in inputs], *rest))
    call = Call(function, args, Struct(dict, (), ()), Wire(output.number))
    name = getattr(function, "__name__", "")
    box = Box("operation", "", f"{name} of {step.box.label}", where=step.box.where, call=call)
    return Step(box, inputs, (output,))
