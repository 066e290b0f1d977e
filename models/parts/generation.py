"""Autoregressive generation: choose the next token, append it, repeat.

A model provides the logits, as a function `step` that keeps its own cache; the loop, the choice of a token and the stop
condition are here. No gradients are recorded, and the model's mode is not changed: in training mode dropout applies.

Source: for sampling from the k most likely tokens, Fan et al. 2018, Hierarchical Neural Story Generation.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import CircuitError, circuit

from .eager import is_eager
from .masks import padding_before


@circuit("... v -> ...")
def choose(
    logits: Tensor,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return one of v tokens, as its index: the most likely, or one sampled from softmax(logits / temperature).

    Args:
        logits: Unnormalized scores of the v tokens.
        temperature: A number above 0 to sample with; None for the most likely token.
        top_k: With a temperature, sample from only the `top_k` most likely tokens.
        generator: Random number generator; torch's default one unless given.

    Raises:
        CircuitError: if `temperature` is not a finite number above 0, `top_k` is not 1 to v, or `top_k` is given
            without a temperature.

    >>> choose(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]]))
    tensor([1, 0])
    """
    refuse_sampling(logits.shape[-1], temperature, top_k)
    if temperature is None:
        return logits.argmax(-1)
    kept, tokens = logits.sort(-1, descending=True) if top_k is None else logits.topk(top_k, -1)
    kept = kept.to(torch.promote_types(kept.dtype, torch.float32))
    weight = ((kept - kept[..., :1]) / temperature).softmax(-1)  # exponents are at most 0: none overflows
    place = torch.multinomial(weight.reshape(-1, weight.shape[-1]), 1, generator=generator)
    return tokens.gather(-1, place.view(*tokens.shape[:-1], 1)).squeeze(-1)


@torch.no_grad()
def extend(
    tokens: Tensor,
    count: int,
    step: Callable[[Tensor, Tensor | None], Tensor],
    *,
    key_mask: Tensor | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    stop: int | None = None,
) -> Tensor:
    """Return the tokens followed by up to `count` generated ones.

    Args:
        tokens: The prompt, long integers of axes `... x`.
        count: Number of tokens to generate.
        step: Function of the tokens that were not passed to it before, `... n`, and of the key mask of all tokens so
            far, `... x`, or None if all are real; it returns the logits of the token that follows, `... v`.
        key_mask: Bool, `... x`: False for padding in the prompt. `step` gets the tokens of each row moved to the right,
            behind its padding; the generated ones follow the prompt as it was given.
        temperature: As in `choose`.
        top_k: As in `choose`.
        generator: As in `choose`.
        stop: End-of-sequence token: after generating it, a sequence is padded with it, and generation ends early
            when all sequences have generated it.

    Raises:
        CircuitError: if a prompt is empty, `count` is below 0, or `choose` raises one.

    >>> extend(torch.tensor([[3, 1]]), 3, lambda tokens, _: torch.eye(5)[(tokens[..., -1] + 1) % 5])
    tensor([[3, 1, 2, 3, 4]])
    """
    refuse_prompt_and_count(tokens, count)
    new, parts, ended = tokens, [tokens], torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    if key_mask is not None:
        new, key_mask = align_right(tokens, key_mask)
    for _ in range(count):
        token = choose(step(new, key_mask), temperature=temperature, top_k=top_k, generator=generator)
        if stop is not None:
            token = token.masked_fill(ended, stop)
            ended = token == stop
        new = token[..., None]
        parts.append(new)
        key_mask = None if key_mask is None else F.pad(key_mask, (0, 1), value=True)
        if stop is not None and ended.all():
            break
    return torch.cat(parts, -1)


def align_right(tokens: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens and their key mask, both `... x`, each row rotated so that its last real token is at the end.

    Raises:
        CircuitError: if a row has no real token, or padding between real tokens; that is not noticed where the call is
            compiled or recorded.

    >>> tokens, real = torch.tensor([[7, 8, 0], [0, 9, 6]]), torch.tensor([[True, True, False], [False, True, True]])
    >>> align_right(tokens, real)[0]
    tensor([[0, 7, 8],
            [0, 9, 6]])
    """
    key_mask = key_mask.expand_as(tokens)
    x = tokens.shape[-1]
    place = torch.arange(x, device=tokens.device) - padding_before(key_mask.flip(-1))[..., None]
    aligned = key_mask.gather(-1, place % x)
    if is_eager(tokens, key_mask):
        if empty := (~key_mask.any(-1)).sum().item():
            raise CircuitError(f"the key mask hides all tokens of {empty} prompts; begin with at least one token")
        if parted := (aligned[..., :-1] & ~aligned[..., 1:]).any(-1).sum().item():
            raise CircuitError(
                f"the key mask hides tokens inside {parted} prompts, and positions would count them: padding stands"
                " before or after a prompt; move the real tokens together"
            )
    return tokens.gather(-1, place % x), aligned


def refuse_sampling(v: int, temperature: float | None, top_k: int | None) -> None:
    """Raise CircuitError unless one of v tokens can be chosen with `temperature` and `top_k`, as in `choose`."""
    if temperature is not None and not 0 < temperature < math.inf:
        raise CircuitError(
            f"temperature is {temperature}; it may be any finite number above 0, or None for the most likely token"
        )
    if top_k is None:
        return
    if temperature is None:
        raise CircuitError(f"top_k={top_k} limits sampling, and nothing is sampled without a temperature")
    if not 1 <= top_k <= v:
        raise CircuitError(f"top_k is {top_k}; it may be 1 to {v}, the number of tokens")


def refuse_prompt_and_count(tokens: Tensor, count: int) -> None:
    """Raise CircuitError if the prompt has no token, or the count is below 0."""
    if not tokens.shape[-1]:
        raise CircuitError("the prompt is empty; begin with at least one token")
    if count < 0:
        raise CircuitError(f"count is {count}; it may be 0 or more")
