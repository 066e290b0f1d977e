"""Vectors that masks hide have no effect on any gradient, whatever they hold: those of the learned maps included.

The oracle is autograd on the same model without the hidden vectors, each sequence alone.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import backward, definitions, trace, track
from models import LanguageModel, MultiHeadAttention, SequenceToSequence, VisualAttention
from models.parts.positions import RotaryPositions
from models.parts.unseen import clear_hidden, clear_padding
from models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer

DOUBLE = torch.float64
both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])
holding = pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
COUNTS = (6, 2, 4)
"""The number of real vectors of each of three sequences, which are padded to six."""


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def real(*counts: int, x: int = 6) -> Tensor:
    return torch.arange(x) < torch.tensor(counts)[:, None]


def weighted(output: Tensor, row: int = 0) -> Tensor:
    """A sum with a weight for each number, which does not depend on how many rows `... x m` follow."""
    count = output.shape[-2] * output.shape[-1]
    return (output * torch.linspace(-1, 1, 100, dtype=DOUBLE)[row : row + count].view(output.shape[-2:])).sum()


def gradients(loss: Tensor, model: nn.Module, *others: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, [*model.parameters(), *others], allow_unused=True)
    return [torch.zeros(()) if each is None else each for each in found]


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "heads": ({}, {}),
    "biases": ({"bias": True}, {}),
    "groups": ({"groups": 2}, {}),
    "one group": ({"groups": 1, "bias": True}, {}),
    "causal": ({}, {"causal": True}),
    "window": ({"window": 2}, {}),
    "causal window of groups, rotary": ({"groups": 2, "window": 3, "rotary": RotaryPositions(4)}, {"causal": True}),
}


@both_ways
@holding
@pytest.mark.parametrize("name", OPTIONS)
def test_padding_of_a_source(way: Any, number: float, name: str) -> None:
    """As each sequence alone, without its padding: gradients of all maps, of target and of source."""
    options, call = OPTIONS[name]
    model = MultiHeadAttention(6, 4, 4, dtype=DOUBLE, **options)
    target, source, keys = random(3, 5, 6).requires_grad_(), random(3, 6, 6), real(*COUNTS)
    source = source.masked_fill(~keys[..., None], number).requires_grad_()
    with way():
        found = gradients(weighted(model(target, source, key_mask=keys, **call)), model, target, source)
        alone = [model(target[b], source[b, :n], **call) for b, n in enumerate(COUNTS)]
    torch.testing.assert_close(found, gradients(sum(map(weighted, alone), torch.zeros(())), model, target, source))
    assert all(each.isfinite().all() for each in found)
    assert found[-1][~keys].eq(0).all()


MASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "bool": lambda: {"mask": hides_last(torch.rand(4, 6) < 0.7)},
    "bool, one for each example": lambda: {"mask": hides_last(torch.rand(2, 4, 6) < 0.7)},
    "floating": lambda: {"mask": torch.where(hides_last(torch.rand(4, 6) < 0.7), random(4, 6), -torch.inf)},
    "one for each head": lambda: {"head_mask": hides_last(torch.rand(4, 4, 6) < 0.7)},
    "one for each head of each example": lambda: {"head_mask": hides_last(torch.rand(2, 4, 4, 6) < 0.7)},
    "half by one, half by another": lambda: {
        "mask": hides_last(torch.ones(4, 6, dtype=torch.bool), [0, 1]),
        "head_mask": torch.where(hides_last(torch.ones(4, 4, 6, dtype=torch.bool), [2, 3]), 0.0, -torch.inf).double(),
    },
    "bool and padding": lambda: {
        "mask": hides_last(torch.ones(4, 6, dtype=torch.bool), [1, 2, 3]),
        "key_mask": torch.arange(6) < torch.tensor([[4], [5]]),
        "causal": True,
    },
    "causal, more keys than queries": lambda: {"causal": True},
}


def hides_last(mask: Tensor, rows: Sequence[int] = (0, 1, 2, 3)) -> Tensor:
    """A mask `... y x` that hides the last two keys from these queries, and the first key from none."""
    mask[..., 0] = True
    mask[..., list(rows), -2:] = False
    return mask


@both_ways
@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("name", MASKS)
def test_columns_that_masks_hide_from_all_queries(way: Any, groups: int | None, name: str) -> None:
    """As the source without the last two vectors."""
    model, masks = MultiHeadAttention(6, 4, 4, groups=groups, dtype=DOUBLE), MASKS[name]()
    target, source = random(2, 4, 6).requires_grad_(), random(2, 6, 6)
    source[:, -2:] = torch.tensor([math.nan, math.inf], dtype=DOUBLE)[:, None]
    source.requires_grad_()
    fewer = {key: each[..., :4] if isinstance(each, Tensor) else each for key, each in masks.items()}
    with way():
        found = gradients(weighted(model(target, source, **masks)), model, target, source)
        expected = gradients(weighted(model(target, source[:, :4], **fewer)), model, target, source)
    torch.testing.assert_close(found, expected)
    assert all(each.isfinite().all() for each in found)


@both_ways
@pytest.mark.parametrize("causal", [False, True])
def test_vectors_beyond_a_window(way: Any, causal: bool) -> None:
    """Three queries of a window of two reach four keys, or three if causal."""
    model, target, source = MultiHeadAttention(6, 4, 4, window=2, dtype=DOUBLE), random(2, 3, 6), random(2, 6, 6)
    n = 3 if causal else 4
    source[:, n:] = math.nan
    with way():
        found = gradients(weighted(model(target, source, causal=causal)), model)
        expected = gradients(weighted(model(target, source[:, :n], causal=causal)), model)
        seen = gradients(weighted(model(target, source[:, : n + 1], causal=causal)), model)
    torch.testing.assert_close([found, seen], [expected, expected])


@both_ways
@pytest.mark.parametrize("masked", ["mask", "head_mask", "key_mask"])
def test_target_vectors_that_see_nothing(way: Any, masked: str) -> None:
    """Their output is that of no keys; as with ordinary numbers in their place."""
    model, mask = MultiHeadAttention(6, 4, 4, bias=True, dtype=DOUBLE), torch.ones(2, 4, 4, 6, dtype=torch.bool)
    blind = torch.tensor([[False] * 4, [True] * 4])
    if masked != "key_mask":
        blind = torch.tensor([[False, True, False, False], [False, False, False, True]])
    mask &= ~blind[:, None, :, None]
    given = {"mask": mask[:, 0], "head_mask": mask, "key_mask": mask[:, 0, 0]}[masked]
    target, source = random(2, 4, 6), random(2, 6, 6)
    with way():
        expected = gradients(weighted(model(target, source, **{masked: given})), model)
        nan = target.masked_fill(blind[..., None], math.nan)
        torch.testing.assert_close(gradients(weighted(model(nan, source, **{masked: given})), model), expected)


@both_ways
def test_what_is_hidden_in_some_heads_or_from_some_queries_is_kept(way: Any) -> None:
    """Its NaN is in the output: nothing is hidden that a query attends to."""
    model, target, source = MultiHeadAttention(6, 4, 4, dtype=DOUBLE), random(4, 6), random(6, 6)
    source[5] = math.nan
    heads, queries = torch.ones(4, 4, 6, dtype=torch.bool), torch.ones(4, 6, dtype=torch.bool)
    heads[1:, :, 5], queries[1:, 5] = False, False
    with way():
        assert model(target, source, head_mask=heads).isnan().any()
        assert model(target, source, queries).isnan().any()
        assert model(target, source, queries, head_mask=heads).isnan().any()
        source[5], target[2] = 1.0, math.nan
        assert model(target, source, head_mask=heads)[2].isnan().all()
        assert model(target, source, queries)[2].isnan().all()


def test_a_vector_that_a_cache_keeps_is_not_cleared() -> None:
    """What is hidden from the queries of one call is seen by those of the next."""
    model = MultiHeadAttention(6, 4, 4, dtype=DOUBLE).requires_grad_(False)
    source, cache = random(4, 6), model.cache(4)
    source[1] = math.inf
    hides = torch.tensor([[True, False], [True, False]])
    assert model(source[:2].clone(), source[:2], hides, cache=cache)[0].isfinite().all()
    assert not model(source[2:], source[2:], torch.ones(2, 4, dtype=torch.bool), cache=cache).isfinite().any()


# --- Layers, stacks and models ----------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {"m": 8, "k": 4, "h": 2, "f": 12, "dtype": DOUBLE}
norms = pytest.mark.parametrize("norm_first", [False, True], ids=["norms after", "norms first"])


@both_ways
@norms
@pytest.mark.parametrize(("number", "causal"), [(math.nan, False), (math.inf, True)])
@pytest.mark.parametrize("kind", [EncoderLayer, partial(Encoder, depth=2)], ids=["layer", "stack"])
def test_padding_of_an_encoder(way: Any, norm_first: bool, number: float, causal: bool, kind: Any) -> None:
    model, keys = kind(**SIZES, norm_first=norm_first), real(*COUNTS)
    source = random(3, 6, 8).masked_fill(~keys[..., None], number).requires_grad_()
    with way():
        output = model(source, key_mask=keys, causal=causal)
        found = gradients(per_sequence(output, COUNTS), model, source)
        alone = [model(source[b, :n], causal=causal) for b, n in enumerate(COUNTS)]
    torch.testing.assert_close(found, gradients(sum(map(weighted, alone), torch.zeros(())), model, source))
    assert all(each.isfinite().all() for each in found)


def per_sequence(output: Tensor, counts: Sequence[int]) -> Tensor:
    """The weighted sum of the real rows of each sequence."""
    return sum((weighted(output[b, :n]) for b, n in enumerate(counts)), torch.zeros(()))


@both_ways
@norms
def test_padding_of_a_source_beside_the_target(way: Any, norm_first: bool) -> None:
    layer, target, keys = EncoderLayer(**SIZES, norm_first=norm_first), random(3, 2, 8), real(*COUNTS)
    source = random(3, 6, 8).masked_fill(~keys[..., None], math.nan)
    with way():
        found = gradients(weighted(layer(target, source=source, key_mask=keys)), layer)
        alone = [layer(target[b], source=source[b, :n]) for b, n in enumerate(COUNTS)]
    torch.testing.assert_close(found, gradients(sum(map(weighted, alone), torch.zeros(())), layer))


TARGETS = (1, 5, 3)


@both_ways
@norms
@pytest.mark.parametrize(
    "kind",
    [DecoderLayer, partial(Decoder, depth=2), partial(Transformer, encoder_depth=1, decoder_depth=2, dropout=0.0)],
    ids=["layer", "stack", "transformer"],
)
def test_padding_of_a_decoder_and_its_memory(way: Any, norm_first: bool, kind: Any) -> None:
    model, keys, others = kind(**SIZES, norm_first=norm_first), real(*TARGETS, x=5), real(*COUNTS)
    target = random(3, 5, 8).masked_fill(~keys[..., None], math.nan).requires_grad_()
    memory = random(3, 6, 8).masked_fill(~others[..., None], math.inf).requires_grad_()
    both = {"key_mask": keys, "memory_key_mask": others}
    if isinstance(model, Transformer):
        both = {"target_key_mask": keys, "source_key_mask": others}

    def run(y: Tensor, x: Tensor, **masks: Tensor) -> Tensor:
        return model(x, y, **masks) if isinstance(model, Transformer) else model(y, x, **masks)

    with way():
        found = gradients(per_sequence(run(target, memory, **both), TARGETS), model, target, memory)
        alone = [run(target[b, :y], memory[b, :x]) for b, (y, x) in enumerate(zip(TARGETS, COUNTS, strict=True))]
    expected = gradients(sum(map(weighted, alone), torch.zeros(())), model, target, memory)
    torch.testing.assert_close(found, expected)
    assert all(each.isfinite().all() for each in found)


@both_ways
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "options", [{"learned_positions": 9}, {"groups": 1, "window": 3}, {"parallel": True}], ids=["learned", "window", ""]
)
def test_padding_of_a_language_model(way: Any, side: str, options: dict[str, Any]) -> None:
    """The vector of the padding token is NaN; its own gradient is zero."""
    model = LanguageModel(7, **SIZES, depth=2, tied=False, **options)
    tokens, keys = torch.randint(1, 7, (3, 6)), real(*COUNTS)
    keys = keys.flip(-1) if side == "left" else keys
    tokens, rows = tokens.masked_fill(~keys, 0), [tokens[b][keys[b]] for b in range(3)]
    with torch.no_grad():
        model.embedding.weight[0] = math.nan
    with way():
        output = model(tokens, key_mask=keys)
        found = gradients(sum((weighted(output[b][keys[b]]) for b in range(3)), torch.zeros(())), model)
        expected = gradients(sum((weighted(model(each)) for each in rows), torch.zeros(())), model)
    torch.testing.assert_close(found, expected)
    assert all(each.isfinite().all() for each in found)


@both_ways
@norms
def test_padding_of_sequence_to_sequence(way: Any, norm_first: bool) -> None:
    model = SequenceToSequence(7, **SIZES, encoder_depth=2, decoder_depth=2, tied=False, padding=0, dropout=0.0)
    source, target, keys = torch.randint(1, 7, (3, 6)), torch.randint(1, 7, (3, 5)), real(*TARGETS, x=5)
    source, target = source.masked_fill(~real(*COUNTS), 0), target.masked_fill(~keys, 0)
    with torch.no_grad():
        model.embedding.weight[0] = math.nan
    with way():
        found = gradients(per_sequence(model(source, target, target_key_mask=keys), TARGETS), model)
        pairs = [model(source[b, :x], target[b, :y]) for b, (x, y) in enumerate(zip(COUNTS, TARGETS, strict=True))]
    expected = gradients(sum(map(weighted, pairs), torch.zeros(())), model)
    torch.testing.assert_close(found, expected)
    assert all(each.isfinite().all() for each in found)


@both_ways
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (2, 1), (3, 2)])
def test_hidden_windows_of_an_image(way: Any, kernel: int, stride: int) -> None:
    """As with ordinary numbers in the pixels that only hidden windows cover; a pixel of a seen window is kept."""
    model = VisualAttention(c=2, k=3, heads=2, kernel=kernel, stride=stride, dtype=DOUBLE, bias=True)
    target, source = random(1, 2, 4, 6), random(1, 2, 5, 4)
    rows, columns = (math.ceil((size - kernel) / stride) + 1 for size in (5, 4))
    ours = [math.ceil((size - kernel) / stride) + 1 for size in (4, 6)]
    mask = torch.ones(1, *ours, rows, columns, dtype=torch.bool)
    mask[..., rows - 1, :], mask[:, :, ours[1] - 1] = False, False
    hidden, blind = slice((rows - 2) * stride + kernel, None), slice((ours[1] - 2) * stride + kernel, None)
    nan, nan_target = source.clone(), target.clone()
    nan[:, :, hidden], nan_target[..., blind] = math.nan, math.inf
    assert nan.isnan().any()
    with way():
        expected = gradients(weighted(model(target, source, mask).flatten(-2)), model)
        torch.testing.assert_close(gradients(weighted(model(nan_target, nan, mask).flatten(-2)), model), expected)
        nan[:, :, : hidden.start][:, :, -1] = math.nan
        assert model(target, nan, mask).isnan().any()


# --- Compiled, mapped, recorded ---------------------------------------------------------------------------------------


def encoder_case() -> tuple[Encoder, Tensor, Tensor, Tensor, list[Tensor]]:
    """A model, its source with NaN in the padding, the key mask, weights of the output, and the gradients expected."""
    model, keys = Encoder(**SIZES, depth=2, norm_first=True), real(*COUNTS)
    source = random(3, 6, 8)
    back = random(3, 6, 8) * keys[..., None]
    expected = gradients((model(source, key_mask=keys) * back).sum(), model)
    return model, source.masked_fill(~keys[..., None], math.nan), keys, back, expected


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled(backend: str, dynamic: bool) -> None:
    model, source, keys, back, expected = encoder_case()
    torch.compiler.reset()
    compiled: Any = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    torch.testing.assert_close(gradients((compiled(source, key_mask=keys) * back).sum(), model), expected)


def test_mapped_and_differentiated_by_torch_func() -> None:
    model, source, keys, back, expected = encoder_case()
    parameters: dict[str, Tensor] = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], source: Tensor, keys: Tensor, back: Tensor) -> Tensor:
        return (torch.func.functional_call(model, parameters, (source,), {"key_mask": keys}) * back).sum()

    each: Any = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, source, keys, back)
    torch.testing.assert_close([part.sum(0) for part in each.values()], expected)


@pytest.mark.slow
def test_diagrams_and_backward_circuits_recorded_at_ordinary_numbers() -> None:
    model, source, keys, back, expected = encoder_case()
    with track(model, to=None) as seen:
        model(random(3, 6, 8), key_mask=keys)
    for diagram in (trace(model, random(3, 6, 8), key_mask=keys), seen.diagram):
        torch.testing.assert_close(gradients((diagram(source, key_mask=keys) * back).sum(), model), expected)
    found = backward(model, random(3, 6, 8), key_mask=keys)(source, key_mask=keys, cotangent=back)
    names = [name for name, _ in model.named_parameters()]
    torch.testing.assert_close([found[name] for name in names], expected)


@pytest.mark.slow
def test_backward_circuits_of_attention_with_a_mask_of_queries_and_keys() -> None:
    model, mask = MultiHeadAttention(6, 4, 4, groups=2, window=3, dtype=DOUBLE), MASKS["bool"]()["mask"]
    target, source, back = random(2, 4, 6), random(2, 6, 6), random(2, 4, 6)
    expected = gradients((model(target, source, mask) * back).sum(), model)
    nan = source.clone()
    nan[:, -2:] = math.nan
    found = backward(model, target, source, mask)(target, nan, mask, cotangent=back)
    torch.testing.assert_close([found[name] for name, _ in model.named_parameters()], expected)
    with track(model, to=None) as seen:
        model(target, source, mask)
    torch.testing.assert_close(gradients((seen.diagram(target, nan, mask) * back).sum(), model), expected)


# --- It costs nothing where there is nothing to hide ------------------------------------------------------------------


def test_the_vectors_themselves_are_returned_where_nothing_is_hidden() -> None:
    target, source, keys = random(4, 6), random(4, 6), real(3, x=4)[0]
    nan = source.masked_fill(~keys[:, None], math.nan)
    nothing: Any = {"causal": False, "window": None}
    for masks, given, options in (
        ((None, None, None), nan, nothing),
        ((None, None, None), nan, {"causal": True, "window": None}),
        ((None, None, keys), source, nothing),
    ):
        found = clear_hidden(target, given, masks, **options)
        assert found[0] is target
        assert found[1] is given
    with torch.no_grad():
        assert clear_hidden(target, nan, (None, None, keys), **nothing)[1] is nan
    assert clear_padding(source, keys) is source
    assert clear_padding(nan, None) is nan
    kept = clear_padding(nan.index_fill(-1, torch.tensor([2]), 5.0), keys)
    assert torch.equal(kept[3], torch.tensor([0.0, 0, 5, 0, 0, 0], dtype=DOUBLE))
