"""Tokens that follow tokens, one at a time: the likeliest, or one that is drawn.

A model gives the scores, as a `step` that remembers what it was given before; the loop, the draw and when to stop are
here. Nothing is recorded for gradients, and the model's mode is left as it is: dropout acts if it is training.

Source: for the choice among the k likeliest, Fan et al. 2018, Hierarchical Neural Story Generation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from circuits import CircuitError, circuit


@circuit("... v -> ...")
def choose(
    logits: Tensor,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One of v tokens: the likeliest, or with a temperature one drawn by softmax(logits / temperature).

    `top_k` leaves only the k likeliest to draw from. Draws are the generator's, torch's own unless one is given. Raises
    CircuitError for a temperature that is not above 0, for a `top_k` outside 1 to v, and for one without a temperature.

    >>> choose(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]]))
    tensor([1, 0])
    """
    refuse_choice(logits.shape[-1], temperature, top_k)
    if temperature is None:
        return logits.argmax(-1)
    kept, tokens = logits.sort(-1, descending=True) if top_k is None else logits.topk(top_k, -1)
    kept = kept.to(torch.promote_types(kept.dtype, torch.float32))
    weight = ((kept - kept[..., :1]) / temperature).softmax(-1)  # the highest at 0: no temperature is too low
    place = torch.multinomial(weight.reshape(-1, weight.shape[-1]), 1, generator=generator)
    return tokens.gather(-1, place.view(*tokens.shape[:-1], 1)).squeeze(-1)


@torch.no_grad()
def extend(
    tokens: Tensor,
    count: int,
    step: Callable[[Tensor], Tensor],
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    stop: int | None = None,
) -> Tensor:
    """The tokens, then up to `count` more; `step` scores what may follow all the tokens that it has been given.

    A sequence that has given `stop` gives it again until the others have too, and then all end. Raises CircuitError
    where there is nothing to follow, and for a count below 0.

    >>> extend(torch.tensor([[3, 1]]), 3, lambda tokens: torch.eye(5)[(tokens[..., -1] + 1) % 5])
    tensor([[3, 1, 2, 3, 4]])
    """
    refuse_extent(tokens, count)
    given, grown, ended = tokens, [tokens], torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    for _ in range(count):
        token = choose(step(given), temperature=temperature, top_k=top_k, generator=generator)
        if stop is not None:
            token = token.masked_fill(ended, stop)
            ended = token == stop
        given = token[..., None]
        grown.append(given)
        if stop is not None and ended.all():
            break
    return torch.cat(grown, -1)


def refuse_choice(v: int, temperature: float | None, top_k: int | None) -> None:
    """Raise CircuitError for settings by which no token can be chosen."""
    if temperature is not None and not 0 < temperature < math.inf:
        raise CircuitError(f"temperature is {temperature}; it may be any number above 0, or None for the likeliest")
    if top_k is None:
        return
    if temperature is None:
        raise CircuitError(f"top_k={top_k} says what to draw from, and nothing is drawn without a temperature")
    if not 1 <= top_k <= v:
        raise CircuitError(f"top_k is {top_k}; it may be 1 to {v}, the number of tokens")


def refuse_extent(tokens: Tensor, count: int) -> None:
    """Raise CircuitError for no tokens to begin with, and for a count below 0."""
    if not tokens.shape[-1]:
        raise CircuitError("there is no token to go on from; begin with one")
    if count < 0:
        raise CircuitError(f"count is {count}; it may be 0 or more")
