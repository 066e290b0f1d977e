"""A decoder-only language model (GPT-style): the probability of each token as the next, given those before it.

Its layers are EncoderLayers with causal attention, pre-norm, with a norm after the last. GPT-2 is
`LanguageModel(50257, m=768, k=64, h=12, f=3072, depth=12, activation=partial(nn.GELU, approximate="tanh"),
learned_positions=1024)`. Llama's layers have `norm=nn.RMSNorm`, `feed_forward=GatedFeedForward` and `bias=False`.

Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, for norms and initialisation; Su et
al. 2021, RoFormer, for rotary positions; Press and Wolf 2017 for the tied head.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .encoder_layer import EncoderLayer, LayerOptions
from .gated_feed_forward import GatedFeedForward
from .layers import FeedForward
from .parts.cache import KeyValueCache, caches_of, for_each_layer, refuse_not_appended
from .parts.generation import extend, refuse_prompt_and_count, refuse_sampling
from .parts.linear import tied_logits
from .parts.masks import padding_before
from .parts.norms import norm_of_vectors
from .parts.positions import LearnedPositions, RotaryPositions, ScaledRotaryPositions
from .parts.sizes import refuse_sizes_below_one
from .parts.tokens import embedded, refuse_not_a_token
from .weights.files import savable
from .weights.language_conversions import LanguageModelConversions

_DTYPES = {"tokens": torch.long, "key_mask": torch.bool}
_KEY_MASK = {"key_mask": "... x"}


@savable
class LanguageModel(LanguageModelConversions):
    """A decoder-only language model (GPT-style): for each of x tokens, the logits of v tokens as the next.

    `forward` returns logits, which F.cross_entropy takes as `logits.flatten(0, 1)`; `probabilities` their softmax.

    Positions are rotary (RoPE) unless `learned_positions` is given. Embeddings and linear maps are initialized as in
    GPT-2: normal with standard deviation 0.02, or 0.02 (2 depth)^-½ for the projections into the residual stream, `Lo`
    and `L2`; biases as 0, norms as the identity.

    Parameters: vm for the embedding, those of `depth` EncoderLayers, and 2m for the norm (m without bias). x learned
    positions add xm, an untied head adds vm.

    Args:
        vocabulary: Number v of tokens (`vocab_size`).
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (`nhead`, `num_heads`).
        f: Number of hidden units of the feed-forward networks (`dim_feedforward`, `intermediate_size`).
        depth: Number of layers (`num_layers`, `num_hidden_layers`).
        activation: Called without arguments, returns the activation of a feed-forward network, as its class does.
        learned_positions: If given, the number of learned position vectors that are added to the embeddings, in place
            of rotary positions; it is then the maximal length of a sequence.
        rotary: The rotary positions, copied for each layer; `RotaryPositions(k)` unless given.
        tied: Whether the head shares the weight of the embedding.
        parallel: Whether attention and feed-forward network of a layer have the same input, as in EncoderLayer.
        groups: Number of heads of keys and values (`num_key_value_heads`), as in MultiHeadAttention.
        window: Sliding window of the attention, as in MultiHeadAttention.
        norm: Class of the norms: nn.LayerNorm or nn.RMSNorm.
        feed_forward: Class of the feed-forward networks: FeedForward or GatedFeedForward.
        bias: Whether linear maps and norms have a bias; the head has none.
        qkv_bias: Whether the maps to queries, keys and values have a bias; as `bias` unless given.
        dropout: As in EncoderLayer; also applied to the first layer's input.
        eps: Number that the norms add to the variance.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if a size is below 1, `dropout` is not from 0 to 1, `groups` does not divide h, k is odd with
            rotary positions, the width of `rotary` is not k, or positions are both learned and rotary.

    >>> model = LanguageModel(vocabulary=65, m=128, k=32, h=4, f=512, depth=2)
    >>> model(torch.randint(65, (5, 20))).shape
    torch.Size([5, 20, 65])
    """

    vocabulary: int
    m: int
    dropout: float
    positions: LearnedPositions | None

    _kinds = MappingProxyType(
        {"rotary": RotaryPositions, "scaled rotary": ScaledRotaryPositions, "gated": GatedFeedForward}
    )

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
        rotary: RotaryPositions | None = None,
        tied: bool = True,
        parallel: bool = False,
        groups: int | None = None,
        window: int | None = None,
        norm: Callable[..., nn.Module] = nn.LayerNorm,
        feed_forward: Callable[..., nn.Module] = FeedForward,
        bias: bool = True,
        qkv_bias: bool | None = None,
        dropout: float = 0.0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("LanguageModel", vocabulary=vocabulary, m=m, f=f, depth=depth)
        self.vocabulary, self.m, self.dropout = vocabulary, m, dropout
        self.embedding: nn.Embedding = nn.Embedding(vocabulary, m, device=device, dtype=dtype)
        learned = learned_positions is not None
        self.positions = LearnedPositions(learned_positions, m, device=device, dtype=dtype) if learned else None
        rotary = _rotary(learned, k, rotary)
        options = LayerOptions(bias=bias, dropout=dropout, eps=eps, device=device, dtype=dtype)
        kinds: dict[str, Any] = {"parallel": parallel, "norm": norm, "feed_forward": feed_forward, "qkv_bias": qkv_bias}
        sizes: dict[str, Any] = {"groups": groups, "window": window}
        layer = partial(EncoderLayer, m, k, h, f, activation, norm_first=True, **sizes, **kinds, **options)
        self.layers: nn.ModuleList = nn.ModuleList(layer(rotary=_copied(rotary)) for _ in range(depth))
        self.norm: nn.Module = norm_of_vectors(norm, m, eps, bias=bias, device=device, dtype=dtype)
        self.head: nn.Linear | None = None if tied else nn.Linear(m, vocabulary, bias=False, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize all parameters."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith((".Lo", ".L2"))
                nn.init.normal_(module.weight, std=0.02 * (2 * len(self.layers)) ** -0.5 if residual else 0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif not list(module.children()):
                reset: Any = getattr(module, "reset_parameters", lambda: None)
                reset()

    @circuit("... x -> ... x v", fixed={"v": "vocabulary"}, dtypes=_DTYPES, optional=_KEY_MASK)
    def forward(self, tokens: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        """Return the logits of each token as the next one, after each prefix; in `key_mask` True is a real token.

        Args:
            tokens: Tokens 0 to v - 1, `... x`, of dtype torch.long.
            key_mask: Bool, `... x`: False for padding, to which no token attends. Positions begin at the first real
                token, so that padding before or after a text does not change its logits.

        Returns:
            Logits, `... x v`: entry [..., i, j] is that of token j after the first i + 1 tokens.

        Raises:
            ShapeError: if the dtype is not torch.long, or that of `key_mask` not torch.bool.
            CircuitError: if there are more tokens than learned positions.
        """
        return self._head_logits(self._hidden_states(tokens, key_mask=key_mask))

    @circuit("... x -> ... x v", fixed={"v": "vocabulary"}, dtypes=_DTYPES, optional=_KEY_MASK)
    def probabilities(self, tokens: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        """Return the probability `... x v` of each token as the next one: the softmax of what `forward` returns."""
        return self(tokens, key_mask=key_mask).softmax(-1)

    @circuit("... x -> ... x'", dtypes=_DTYPES, optional=_KEY_MASK)
    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        key_mask: Tensor | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Return the tokens followed by `count` generated tokens, or fewer if all sequences have ended with `stop`.

        Keys and values are cached, so that no position is computed twice. No gradients are recorded. The training mode
        is not changed: call `eval()` first to generate without dropout.

        Args:
            tokens: The prompt, at least one token, `... x`, of dtype torch.long.
            count: Number of tokens to generate.
            key_mask: Bool, `... x`, False for padding before or after a prompt; each is continued as if it were alone.
            temperature: If given, sample from softmax(logits / temperature); otherwise take the most likely token.
            top_k: With a temperature, sample from only the `top_k` most likely tokens.
            generator: Random number generator; torch's default one unless given.
            stop: End-of-sequence token: after generating it, a sequence is padded with it, and generation ends early
                when all sequences have generated it.

        Raises:
            CircuitError: if an argument is out of range, a prompt is empty, or there are too few learned positions.

        >>> model = LanguageModel(vocabulary=65, m=128, k=32, h=4, f=512, depth=2)
        >>> model.generate(torch.randint(65, (5, 20)), 30, temperature=0.8, top_k=10).shape
        torch.Size([5, 50])
        """
        refuse_prompt_and_count(tokens, count)
        refuse_sampling(self.vocabulary, temperature, top_k)
        refuse_not_a_token("stop", stop, self.vocabulary)
        last = tokens.shape[-1] + count - 1  # the last generated token is not an input
        if self.positions is not None and last > self.positions.weight.shape[0]:
            raise CircuitError(
                f"LanguageModel: to generate {count} tokens after {tokens.shape[-1]}, the model needs {last} positions;"
                f" {self.positions.weight.shape[0]} are learned"
            )
        caches = caches_of("LanguageModel", self.layers, max(last, 1), tokens.shape[:-1])

        def step(new: Tensor, real: Tensor | None) -> Tensor:
            return self._head_logits(self._hidden_states(new, caches, real)[..., -1, :])

        choice: Any = {"temperature": temperature, "top_k": top_k, "generator": generator, "stop": stop}
        return extend(tokens, count, step, key_mask=key_mask, **choice)

    def _hidden_states(
        self, tokens: Tensor, caches: Sequence[KeyValueCache] = (), key_mask: Tensor | None = None
    ) -> Tensor:
        """Return the last norm's output, `... x m`; with caches, the tokens follow those of earlier calls."""
        start = caches[0].length if caches else 0
        vectors = embedded("LanguageModel", self.embedding, tokens, self.vocabulary)
        if self.positions is not None:
            vectors = self.positions(vectors, start, None if key_mask is None else padding_before(key_mask))
        if self.dropout and self.training:
            vectors = F.dropout(vectors, self.dropout)
        for layer, cache in zip(self.layers, for_each_layer("LanguageModel", caches, len(self.layers)), strict=True):
            vectors = layer(vectors, causal=True, cache=cache, key_mask=key_mask)
            refuse_not_appended(layer, cache, start + vectors.shape[-2])
        return self.norm(vectors)

    def _head_logits(self, vectors: Tensor) -> Tensor:
        """Return the logits of each token of the vocabulary: apply the head, or if tied the embedding's weight."""
        return tied_logits(vectors, self.embedding) if self.head is None else self.head(vectors)


def _copied(rotary: RotaryPositions | None) -> RotaryPositions | None:
    """Return a copy for one layer, which shares the cosines and sines of the last call with the other layers."""
    made = copy.deepcopy(rotary)
    if made is not None and rotary is not None:
        made.waves = rotary.waves
    return made


def _rotary(learned: bool, k: int, rotary: RotaryPositions | None) -> RotaryPositions | None:
    """Return the rotary positions; None if positions are learned; raise CircuitError if both are given."""
    if learned and rotary is not None:
        raise CircuitError("LanguageModel: positions may be learned or rotary; give learned_positions or rotary")
    return None if learned else RotaryPositions(k) if rotary is None else rotary


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "LanguageModel.probabilities": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
