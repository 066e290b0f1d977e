"""Sequences to sequences: the whole of the paper's Figure 1, tokens in, the next token's probability out.

One embedding serves the source, the target and, if tied, the head. It is multiplied by √m where it is read, and sines
of the position are added.

Source: Vaswani et al. 2017, Attention Is All You Need, Figure 1 and sections 3.4, 3.5 and 5.4.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, repeat

from .parts.generation import extend, refuse_choice, refuse_extent
from .parts.positions import SinusoidalPositions
from .transformer import Transformer, glorot_uniform
from .transformer_layers import DecoderCache
from .weights.files import savable


@savable
class SequenceToSequence(nn.Module):
    """Which of v tokens comes next, after each of y target tokens, given x source tokens: `vocabulary` is v.

    But for the vocabulary the sizes are the paper's base model's. Where the source has the token `padding`, nobody
    looks; in the target padding comes last, where no token sees it anyway. In training `dropout` acts as in
    Transformer, and on what the first layers are given. The embedding begins normal with variance 1/m, all else as in
    Transformer.

    Parameters: vm of the embedding, those of Transformer, and vm more untied. Raises CircuitError where sizes cannot
    be, and for a padding that is no token.

    >>> model = SequenceToSequence(vocabulary=10, m=32, k=8, h=4, f=64, encoder_depth=1, decoder_depth=1)
    >>> model(torch.randint(10, (5, 22)), torch.randint(10, (5, 20))).shape
    torch.Size([5, 20, 10])
    """

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
        if vocabulary < 1:
            raise CircuitError(f"SequenceToSequence: vocabulary is {vocabulary}; it may be 1 or more")
        if padding is not None:
            _refuse_no_token("padding", padding, vocabulary)
        self.vocabulary, self.m, self.padding, self.dropout = vocabulary, m, padding, dropout
        self.embedding = nn.Embedding(vocabulary, m, device=device, dtype=dtype)
        self.positions = SinusoidalPositions(m)
        self.transformer = Transformer(
            m,
            k,
            h,
            f,
            encoder_depth,
            decoder_depth,
            activation,
            norm_first=norm_first,
            final_norm=final_norm,
            bias=bias,
            dropout=dropout,
            eps=eps,
            device=device,
            dtype=dtype,
        )
        self.head = None if tied else nn.Linear(m, vocabulary, bias=False, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew."""
        glorot_uniform(self)
        nn.init.normal_(self.embedding.weight, std=self.m**-0.5)

    @circuit(
        "... x, ... y -> ... y v",
        fixed={"v": "vocabulary"},
        dtypes={"source": torch.long, "target": torch.long},
    )
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The probability of each token as the next, after each prefix of the target."""
        return self.logits(source, target).softmax(-1)

    @circuit(
        "... x, ... y -> ... y v",
        fixed={"v": "vocabulary"},
        dtypes={"source": torch.long, "target": torch.long},
    )
    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """The logarithm of each next token's probability, up to one number shared by them all."""
        return self._score(self._decode(target, self._encode(source), source))

    @circuit("... x, ... y -> ... y'", dtypes={"source": torch.long, "target": torch.long})
    @torch.no_grad()
    def generate(
        self,
        source: Tensor,
        target: Tensor,
        count: int,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """The target, which is at least a token to start from, then `count` more, as LanguageModel.generate gives them.

        The source is encoded once, and no position of the target is computed twice.

        >>> model = SequenceToSequence(vocabulary=10, m=32, k=8, h=4, f=64, encoder_depth=1, decoder_depth=1).eval()
        >>> model.generate(torch.randint(10, (5, 22)), torch.zeros(5, 1, dtype=torch.long), 7).shape
        torch.Size([5, 8])
        """
        refuse_extent(target, count)
        refuse_choice(self.vocabulary, temperature, top_k)
        if stop is not None:
            _refuse_no_token("stop", stop, self.vocabulary)
        memory = self._encode(source)
        caches = self.transformer.decoder.cache(memory, max(target.shape[-1] + count - 1, 1))

        def step(new: Tensor) -> Tensor:
            return self._score(self._decode(new, memory, source, caches)[..., -1, :])

        return extend(target, count, step, temperature=temperature, top_k=top_k, generator=generator, stop=stop)

    def _embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """A vector for each token at its position; the first stands at `start`."""
        vectors = self.positions(self.embedding(tokens) * self.m**0.5, start)
        return F.dropout(vectors, self.dropout) if self.dropout and self.training else vectors

    def _encode(self, source: Tensor) -> Tensor:
        """The memory: a vector for each source token, with what it finds in the others."""
        return self.transformer.encoder(self._embed(source), self._unpadded(source, source.shape[-1]))

    def _decode(self, target: Tensor, memory: Tensor, source: Tensor, caches: Sequence[DecoderCache] = ()) -> Tensor:
        """A vector for each target token, with what it finds before it, in this call or earlier, and in the memory."""
        vectors = self._embed(target, caches[0].own.length if caches else 0)
        mask = self._unpadded(source, target.shape[-1])
        return self.transformer.decoder(vectors, memory, memory_mask=mask, caches=caches)

    def _unpadded(self, source: Tensor, y: int) -> Tensor | None:
        """Which source tokens each of y tokens may look at; None for all."""
        return None if self.padding is None else repeat(source != self.padding, "... x -> ... y x", y=y)

    def _score(self, vectors: Tensor) -> Tensor:
        """The head: how well each token of the vocabulary answers a vector."""
        return F.linear(vectors, self.embedding.weight) if self.head is None else self.head(vectors)


def _refuse_no_token(name: str, token: int, vocabulary: int) -> None:
    """Raise CircuitError for a number that is no token."""
    if not 0 <= token < vocabulary:
        raise CircuitError(f"{name} is {token}; the tokens are 0 to {vocabulary - 1}")
