"""Sequence-to-sequence model: the whole of the paper's Figure 1, from tokens to the probability of the next token.

Source, target and, if tied, the head share one embedding. Embedded tokens are multiplied by √m, and sinusoidal
positions are added.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1 and sections 3.4, 3.5 and 5.4.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import circuit

from .encoder_layer import LayerOptions
from .parts.cache import DecoderCache
from .parts.generation import extend, refuse_prompt_and_count, refuse_sampling
from .parts.linear import tied_logits
from .parts.masks import combine_all, padding_before
from .parts.positions import SinusoidalPositions
from .parts.sizes import refuse_sizes_below_one
from .parts.tokens import embedded, refuse_not_a_token
from .transformer import Transformer, glorot_uniform
from .weights.files import savable

_KEY_MASKS = {"source_key_mask": "... x", "target_key_mask": "... y"}
_DTYPES = {"source": torch.long, "target": torch.long, **dict.fromkeys(_KEY_MASKS, torch.bool)}

_Caches = Sequence[DecoderCache]


@savable
class SequenceToSequence(nn.Module):
    """An encoder-decoder transformer over tokens: the logits of the next target token, given x source tokens.

    `forward` returns logits, which F.cross_entropy takes as `logits.flatten(0, 1)`; `probabilities`, the whole of
    Figure 1, returns their softmax.

    The default sizes are those of the paper's base model. The embedding is initialized normal with variance 1/m,
    everything else as in Transformer.

    Parameters: vm for the embedding, plus those of Transformer; an untied head adds vm.

    Args:
        vocabulary: Number v of tokens (`vocab_size`).
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (`nhead`, `num_heads`).
        f: Number of hidden units of the feed-forward networks (`dim_feedforward`, `intermediate_size`).
        encoder_depth: Number of layers of the encoder (`num_encoder_layers`).
        decoder_depth: Number of layers of the decoder (`num_decoder_layers`).
        activation: Called without arguments, returns the activation of a feed-forward network, as its class does.
        norm_first: Whether the layers are pre-norm.
        final_norm: Whether a norm follows the last layer of each stack.
        tied: Whether the head shares the weight of the embedding.
        padding: If given, the padding token, which is masked out in the source; positions begin at the first other
            token. In the target it is not masked: put it after all other tokens, which then do not attend to it, since
            attention is causal, or pass `target_key_mask`.
        bias: Whether linear maps and norms have a bias; the head has none.
        dropout: As in Transformer; also applied to the input of both stacks.
        eps: Number that the norms add to the variance.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if a size other than f is below 1, or `padding` is not a token of the vocabulary.

    >>> model = SequenceToSequence(vocabulary=10, m=32, k=8, h=4, f=64, encoder_depth=1, decoder_depth=1)
    >>> model(torch.randint(10, (5, 22)), torch.randint(10, (5, 20))).shape
    torch.Size([5, 20, 10])
    """

    vocabulary: int
    m: int
    padding: int | None
    dropout: float

    def __init__(
        self,
        vocabulary: int,
        m: int = 512,
        k: int = 64,
        h: int = 8,
        f: int = 2048,
        encoder_depth: int = 6,
        decoder_depth: int = 6,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        norm_first: bool = False,
        final_norm: bool = True,
        tied: bool = True,
        padding: int | None = None,
        bias: bool = True,
        dropout: float = 0.1,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("SequenceToSequence", vocabulary=vocabulary, m=m)
        refuse_not_a_token("padding", padding, vocabulary)
        self.vocabulary, self.m, self.padding, self.dropout = vocabulary, m, padding, dropout
        self.embedding: nn.Embedding = nn.Embedding(vocabulary, m, device=device, dtype=dtype)
        self.positions: SinusoidalPositions = SinusoidalPositions(m)
        options = LayerOptions(bias=bias, dropout=dropout, eps=eps, device=device, dtype=dtype)
        transformer = partial(Transformer, m, k, h, f, encoder_depth, decoder_depth, activation, **options)
        self.transformer: Transformer = transformer(norm_first=norm_first, final_norm=final_norm)
        self.head: nn.Linear | None = None if tied else nn.Linear(m, vocabulary, bias=False, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize all parameters."""
        glorot_uniform(self)
        nn.init.normal_(self.embedding.weight, std=self.m**-0.5)

    @circuit("... x, ... y -> ... y v", fixed={"v": "vocabulary"}, dtypes=_DTYPES, optional=_KEY_MASKS)
    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_key_mask: Tensor | None = None,
        target_key_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of each token as the next one, after each prefix; in the key masks True is a real token.

        Args:
            source: Tokens 0 to v - 1, `... x`, of dtype torch.long.
            target: Tokens 0 to v - 1, `... y`, of dtype torch.long.
            source_key_mask: Bool, `... x`: False for padding in the source, to which no token attends; combined with
                `padding`. Positions begin at the first real token.
            target_key_mask: Bool, `... y`: the same for the target.

        Returns:
            Logits, `... y v`: entry [..., i, j] is that of token j after the first i + 1 target tokens.

        Raises:
            ShapeError: if leading axes have different sizes, or a dtype is not torch.long, or torch.bool of a key mask.
        """
        real = self._real(source, source_key_mask)
        return self._head_logits(self._decode(target, self._encode(source, real), real, target_key_mask))

    @circuit("... x, ... y -> ... y v", fixed={"v": "vocabulary"}, dtypes=_DTYPES, optional=_KEY_MASKS)
    def probabilities(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_key_mask: Tensor | None = None,
        target_key_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the probability `... y v` of each token as the next one: the softmax of what `forward` returns."""
        return self(source, target, source_key_mask=source_key_mask, target_key_mask=target_key_mask).softmax(-1)

    @circuit("... x, ... y -> ... y'", dtypes=_DTYPES, optional=_KEY_MASKS)
    @torch.no_grad()
    def generate(
        self,
        source: Tensor,
        target: Tensor,
        count: int,
        *,
        source_key_mask: Tensor | None = None,
        target_key_mask: Tensor | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Return the target followed by `count` generated tokens, or fewer if all sequences have ended with `stop`.

        The source is encoded once, and no position of the target is computed twice. Gradients and training mode are as
        in LanguageModel.generate.

        Args:
            source: The source tokens, `... x`, of dtype torch.long.
            target: The target tokens to continue, at least one, `... y`, of dtype torch.long.
            count: Number of tokens to generate.
            source_key_mask: As in `forward`.
            target_key_mask: For targets of unequal length, as `key_mask` in LanguageModel.generate.
            temperature: As in LanguageModel.generate.
            top_k: As in LanguageModel.generate.
            generator: As in LanguageModel.generate.
            stop: As in LanguageModel.generate.

        Raises:
            CircuitError: if an argument is out of range, or a target is empty.

        >>> model = SequenceToSequence(vocabulary=10, m=32, k=8, h=4, f=64, encoder_depth=1, decoder_depth=1).eval()
        >>> model.generate(torch.randint(10, (5, 22)), torch.zeros(5, 1, dtype=torch.long), 7).shape
        torch.Size([5, 8])
        """
        refuse_prompt_and_count(target, count)
        refuse_sampling(self.vocabulary, temperature, top_k)
        refuse_not_a_token("stop", stop, self.vocabulary)
        real = self._real(source, source_key_mask)
        memory = self._encode(source, real)
        caches = self.transformer.decoder.cache(memory, max(target.shape[-1] + count - 1, 1))

        def step(new: Tensor, key_mask: Tensor | None) -> Tensor:
            return self._head_logits(self._decode(new, memory, real, key_mask, caches)[..., -1, :])

        choice: Any = {"temperature": temperature, "top_k": top_k, "generator": generator, "stop": stop}
        return extend(target, count, step, key_mask=target_key_mask, **choice)

    def _embed(self, tokens: Tensor, key_mask: Tensor | None, start: int = 0) -> Tensor:
        """Return the embedding of each token plus its position vector; the first real token is at position 0."""
        padding = None if key_mask is None else padding_before(key_mask)
        vectors = embedded("SequenceToSequence", self.embedding, tokens, self.vocabulary)
        vectors = self.positions(vectors * self.m**0.5, start, padding)
        return F.dropout(vectors, self.dropout) if self.dropout and self.training else vectors

    def _encode(self, source: Tensor, real: Tensor | None) -> Tensor:
        """Return the memory: the encoder's output, one vector for each source token."""
        return self.transformer.encoder(self._embed(source, real), key_mask=real)

    def _decode(
        self, target: Tensor, memory: Tensor, real: Tensor | None, key_mask: Tensor | None, caches: _Caches = ()
    ) -> Tensor:
        """Return the decoder's output for each target token; with caches, the tokens follow those of earlier calls."""
        vectors = self._embed(target, key_mask, caches[0].own.length if caches else 0)
        return self.transformer.decoder(vectors, memory, key_mask=key_mask, memory_key_mask=real, caches=caches)

    def _real(self, source: Tensor, key_mask: Tensor | None) -> Tensor | None:
        """Return the key mask of the source: True where a token is real; None if neither it nor `padding` is given."""
        return combine_all(key_mask, None if self.padding is None else source != self.padding)

    def _head_logits(self, vectors: Tensor) -> Tensor:
        """Return the logits of each token of the vocabulary: apply the head, or if tied the embedding's weight."""
        return tied_logits(vectors, self.embedding) if self.head is None else self.head(vectors)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "SequenceToSequence.probabilities": {"order": "y x ... h"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
