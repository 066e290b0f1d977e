"""A causal language model: the probability of each token as the next, given those before it.

A decoder-only transformer: layers with their norms before their boxes, in which a token sees itself and what is before
it, and a norm at the end. With `learned_positions=1024`, sizes 768, 64, 12 and 3072, and depth 12 it is GPT-2.

Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, for norms and initialisation; Su et
al. 2021, RoFormer, for rotary positions; Press and Wolf 2017 for the tied head.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .parts.cache import KeyValueCache
from .parts.generation import extend, refuse_choice, refuse_extent
from .parts.positions import LearnedPositions, RotaryPositions
from .transformer_layers import EncoderLayer
from .weights.files import savable


@savable
class LanguageModel(nn.Module):
    """Which of v tokens comes next, after each of x: `vocabulary` is v.

    Queries and keys are turned by their positions, or a vector is learned for each of `learned_positions` and added;
    then no text may be longer. The head scores a token by its own embedding if `tied`, or else has a weight of its own.
    `groups` and `window` are those of MultiHeadAttention. In training `dropout` acts as in EncoderLayer, and on what
    the first layer is given. Weights and embeddings begin normal with standard deviation 0.02, but those of `Lo` and
    `L2`, whose answers add up over the layers, with 0.02 (2 depth)^-½; biases at 0, norms as the identity (GPT-2's).

    Parameters: vm of the embedding, those of depth EncoderLayers, 2m of the norm, m without bias; xm for x learned
    positions; vm more untied. Raises CircuitError where sizes cannot be: among others, for an odd k that is to turn.

    >>> model = LanguageModel(vocabulary=65, m=128, k=32, h=4, f=512, depth=2)
    >>> model(torch.randint(65, (5, 20))).shape
    torch.Size([5, 20, 65])
    """

    def __init__(
        self,
        vocabulary: int,
        m: int,
        k: int,
        h: int,
        f: int,
        depth: int,
        activation: Callable[[], nn.Module] = nn.GELU,
        *,
        learned_positions: int | None = None,
        tied: bool = True,
        groups: int | None = None,
        window: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in {"vocabulary": vocabulary, "depth": depth}.items():
            if size < 1:
                raise CircuitError(f"LanguageModel: {name} is {size}; it may be 1 or more")
        self.vocabulary, self.m, self.dropout = vocabulary, m, dropout
        self.embedding = nn.Embedding(vocabulary, m, device=device, dtype=dtype)
        learned = learned_positions is not None
        self.positions = LearnedPositions(learned_positions, m, device=device, dtype=dtype) if learned else None
        self.layers = nn.ModuleList(
            EncoderLayer(
                m,
                k,
                h,
                f,
                activation,
                norm_first=True,
                groups=groups,
                rotary=None if learned else RotaryPositions(k),
                window=window,
                bias=bias,
                dropout=dropout,
                eps=eps,
                device=device,
                dtype=dtype,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(m, eps, bias=bias, device=device, dtype=dtype)
        self.head = None if tied else nn.Linear(m, vocabulary, bias=False, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                adds_up = name.endswith((".Lo", ".L2"))
                nn.init.normal_(module.weight, std=0.02 * (2 * len(self.layers)) ** -0.5 if adds_up else 0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif not list(module.children()):
                reset: Any = getattr(module, "reset_parameters", lambda: None)
                reset()

    @circuit("... x -> ... x v", fixed={"v": "vocabulary"}, dtypes={"tokens": torch.long})
    def forward(self, tokens: Tensor) -> Tensor:
        """The probability of each token as the next, after each prefix."""
        return self.logits(tokens).softmax(-1)

    @circuit("... x -> ... x v", fixed={"v": "vocabulary"}, dtypes={"tokens": torch.long})
    def logits(self, tokens: Tensor) -> Tensor:
        """The logarithm of each next token's probability, up to one number shared by them all."""
        return self._score(self._read(tokens))

    @circuit("... x -> ... x'", dtypes={"tokens": torch.long})
    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """The tokens, then `count` more: each the likeliest, or with a temperature drawn, as `choose` does.

        No position is computed twice. A sequence that has given the token `stop` gives it again until all have, and
        then all end. No gradients; the mode stays as it is, so call `eval()` first where there is dropout. Raises
        CircuitError for settings out of range, for no tokens, and where positions are learned for too few.

        >>> model = LanguageModel(vocabulary=65, m=128, k=32, h=4, f=512, depth=2)
        >>> model.generate(torch.randint(65, (5, 20)), 30, temperature=0.8, top_k=10).shape
        torch.Size([5, 50])
        """
        refuse_extent(tokens, count)
        refuse_choice(self.vocabulary, temperature, top_k)
        if stop is not None and not 0 <= stop < self.vocabulary:
            raise CircuitError(f"stop is {stop}; the tokens are 0 to {self.vocabulary - 1}")
        last = tokens.shape[-1] + count - 1  # the last token is given to nobody
        if self.positions is not None and last > self.positions.weight.shape[0]:
            raise CircuitError(
                f"LanguageModel: {tokens.shape[-1]} tokens and {count} more, of which the model reads {last};"
                f" positions are learned for {self.positions.weight.shape[0]}"
            )
        batch = tokens.shape[:-1]
        caches = [cast(EncoderLayer, layer).attention.cache(max(last, 1), batch) for layer in self.layers]

        def step(new: Tensor) -> Tensor:
            return self._score(self._read(new, caches)[..., -1, :])

        return extend(tokens, count, step, temperature=temperature, top_k=top_k, generator=generator, stop=stop)

    def _read(self, tokens: Tensor, caches: Sequence[KeyValueCache] = ()) -> Tensor:
        """A vector for each token, with what it finds in those before it, in this call or in earlier ones."""
        vectors = self.embedding(tokens)
        if self.positions is not None:
            vectors = self.positions(vectors, caches[0].length if caches else 0)
        if self.dropout and self.training:
            vectors = F.dropout(vectors, self.dropout)
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            vectors = layer(vectors, causal=True, cache=cache)
        return self.norm(vectors)

    def _score(self, vectors: Tensor) -> Tensor:
        """The head: how well each token of the vocabulary answers a vector."""
        return F.linear(vectors, self.embedding.weight) if self.head is None else self.head(vectors)
