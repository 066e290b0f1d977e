"""Padding: `key_mask` of attention, layers, stacks and models over tokens; what is said where a mask does not fit."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported

import models
from circuits import CircuitError, ShapeError, definitions, find_circuit, trace
from models.attention import attention, grouped_attention
from models.parts.masks import combine
from models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer
from models.visual_attention import VisualAttention

DOUBLE = torch.float64
both = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def real(x: int, *counts: int, side: str = "right") -> Tensor:
    """A key mask for sequences with so many real vectors, padded to x on one side."""
    mask = torch.arange(x) < torch.tensor(counts)[:, None]
    return mask if side == "right" else mask.flip(-1)


sides = pytest.mark.parametrize("side", ["left", "right"])


# --- Attention, layers and stacks are torch's, with the mask inverted -------------------------------------------------


@both
@pytest.mark.parametrize("y", [4, 3, 1])
@pytest.mark.parametrize("masked", ["no other mask", "mask", "float mask", "causal"])
@sides
def test_attention_is_torchs_with_key_padding_mask_inverted(way: Any, y: int, masked: str, side: str) -> None:
    """Outputs and all gradients; three sequences, so that with y = 3 a mask `b x` could be taken for `y x`."""
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=DOUBLE)
    ours = models.MultiHeadAttention.from_torch(theirs)
    target, source, keys = (
        random(3, y, 8).requires_grad_(),
        random(3, 4, 8).requires_grad_(),
        real(4, 4, 2, 3, side=side),
    )
    may = torch.rand(y, 4) < 0.7
    may[:, 1:3] = True
    added = random(y, 4)
    mine: dict[str, Any] = {"mask": {"mask": may}, "float mask": {"mask": added}}.get(masked, {})
    other: Any = {"mask": ~may, "float mask": added}.get(masked)
    if masked == "causal":
        mine, other = {"mask": torch.ones(y, 4).tril(2).bool()}, torch.ones(y, 4).triu(3).bool()
    padding = torch.zeros(3, 4, dtype=DOUBLE).masked_fill(~keys, -torch.inf) if masked == "float mask" else ~keys
    with way():
        found = ours(target, source, key_mask=keys, **mine)
    expected = theirs(target, source, source, key_padding_mask=padding, attn_mask=other, need_weights=False)[0]
    torch.testing.assert_close(found, expected)
    back = random(3, y, 8)
    wanted = torch.autograd.grad(expected, (target, source, theirs.out_proj.weight), back)
    with way():
        slopes = torch.autograd.grad(found, (target, source, ours.Lo.weight), back)
    torch.testing.assert_close(slopes, wanted)
    assert slopes[1][~keys].eq(0).all()


@both
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 2}, {"causal": True, "window": 2, "start": 2}])
@pytest.mark.parametrize("g", [1, 2, 4])
def test_padding_is_as_if_it_were_not_there(way: Any, options: dict[str, Any], g: int) -> None:
    """Each sequence alone, without its padding on the right; rubbish in the padding has no effect."""
    query, key, value, keys = random(3, 4, 5, 6), random(3, g, 7, 6), random(3, g, 7, 6), real(7, 7, 3, 5)
    key[1, :, 3:], value[2, :, 5:] = torch.nan, torch.inf
    attend = attention if g == 4 else grouped_attention
    with way():
        found = attend(query, key, value, key_mask=keys[:, None] if g == 4 else keys, **options)
        for b, n in enumerate((7, 3, 5)):
            alone = attend(query[b], key[b, :, :n], value[b, :, :n], **options)
            torch.testing.assert_close(found[b], alone)


@both
def test_one_key_mask_for_all(way: Any) -> None:
    query, key, value, keys = random(3, 2, 5, 6), random(3, 2, 7, 6), random(3, 2, 7, 6), real(7, 4)[0]
    layer, target, source = models.MultiHeadAttention(6, 2, 2, groups=1, dtype=DOUBLE), random(3, 5, 6), random(3, 7, 6)
    with way():
        torch.testing.assert_close(
            attention(query, key, value, key_mask=keys), attention(query, key[..., :4, :], value[..., :4, :])
        )
        torch.testing.assert_close(
            grouped_attention(query, key[:, :1], value[:, :1], key_mask=keys),
            grouped_attention(query, key[:, :1, :4], value[:, :1, :4]),
        )
        torch.testing.assert_close(layer(target, source, key_mask=keys), layer(target, source[:, :4]))
        torch.testing.assert_close(layer(target[0], source[0], key_mask=keys), layer(target[0], source[0, :4]))


@both
def test_a_sequence_of_padding_alone_gives_zeros_and_no_gradient(way: Any) -> None:
    layer = models.MultiHeadAttention(6, 2, 2, dtype=DOUBLE)
    target, source = random(2, 5, 6).requires_grad_(), random(2, 7, 6).requires_grad_()
    with way():
        found = layer(target, source, key_mask=real(7, 0, 4))
        found.sum().backward()
    assert found[0].eq(0).all()
    assert found[1].ne(0).any()
    for each in (target, source):
        assert each.grad is not None
        assert each.grad[0].eq(0).all()
        assert each.grad.isfinite().all()


@pytest.mark.parametrize("norm_first", [False, True])
@sides
def test_the_encoder_is_torchs(norm_first: bool, side: str) -> None:
    """Where a vector is real; torch's fast path, in evaluation, has zeros for the padding."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, dtype=DOUBLE, dropout=0.0)
    source, keys = random(3, 5, 8), real(5, 5, 2, 4, side=side)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for mine, other in ((EncoderLayer.from_torch(layer), layer), (Encoder.from_torch(theirs), theirs)):
        torch.testing.assert_close(mine(source, key_mask=keys), other(source, src_key_padding_mask=~keys))
        square = torch.ones(5, 5).tril().bool()
        if side == "right":  # on the left a causal mask hides all keys of a padding vector: NaN in torch
            torch.testing.assert_close(
                mine(source, square, key_mask=keys), other(source, ~square, src_key_padding_mask=~keys)
            )
            torch.testing.assert_close(
                mine(source, causal=True, key_mask=keys), other(source, ~square, src_key_padding_mask=~keys)
            )


def test_the_decoder_and_the_transformer_are_torchs() -> None:
    theirs = nn.Transformer(8, 2, 1, 2, 16, batch_first=True, dtype=DOUBLE, dropout=0.0)
    source, target = random(3, 5, 8), random(3, 4, 8)
    sources, targets = real(5, 5, 2, 4), real(4, 4, 3, 1)
    options: dict[str, Any] = {"tgt_mask": torch.ones(4, 4).triu(1).bool(), "tgt_key_padding_mask": ~targets}
    ours, keys = Transformer.from_torch(theirs), {"source_key_mask": sources, "target_key_mask": targets}
    expected = theirs(source, target, src_key_padding_mask=~sources, memory_key_padding_mask=~sources, **options)
    torch.testing.assert_close(ours(source, target, **keys), expected)
    layer: Any = theirs.decoder.layers[0]
    keys = {"key_mask": targets, "memory_key_mask": sources}
    for mine, other in (
        (Decoder.from_torch(theirs.decoder), theirs.decoder),
        (DecoderLayer.from_torch(layer), layer),
    ):
        expected = other(target, source, memory_key_padding_mask=~sources, **options)
        torch.testing.assert_close(mine(target, source, **keys), expected)


@pytest.mark.parametrize("options", [{}, {"groups": 1}, {"window": 2}], ids=str)
@sides
def test_with_a_cache_the_key_mask_is_of_all_keys_so_far(options: dict[str, Any], side: str) -> None:
    layer, source, keys = (
        models.MultiHeadAttention(6, 4, 2, **options, dtype=DOUBLE),
        random(3, 6, 6),
        real(6, 6, 3, 5, side=side),
    )
    expected = layer(source, source, key_mask=keys, causal=True)
    cache = layer.cache(6, (3,))
    with torch.no_grad():
        first = layer(source[:, :2], source[:, :2], key_mask=keys[:, :2], causal=True, cache=cache)
        rest = [
            layer(source[:, i : i + 1], source[:, i : i + 1], key_mask=keys[:, : i + 1], causal=True, cache=cache)
            for i in range(2, 6)
        ]
    torch.testing.assert_close(torch.cat([first, *rest], 1), expected)
    with pytest.raises(ShapeError, match="key_mask is for 5 source vectors; with those of this call the cache has 3"):
        layer(source[:, :1], source[:, :1], key_mask=keys[:, :5], cache=_filled(layer, source[:, :2]))


def _filled(layer: models.MultiHeadAttention, source: Tensor) -> Any:
    cache = layer.cache(6, (3,))
    with torch.no_grad():
        cache.append(*layer.remember(source))
    return cache


def test_a_decoder_with_caches() -> None:
    decoder, target, memory = Decoder(6, 2, 2, 8, 2, dtype=DOUBLE), random(3, 5, 6), random(3, 4, 6)
    own, other = real(5, 5, 3, 4, side="left"), real(4, 2, 4, 3)
    expected = decoder(target, memory, key_mask=own, memory_key_mask=other)
    with torch.no_grad():
        caches = decoder.cache(memory, 5)
        found = [
            decoder(target[:, i : i + 1], memory, key_mask=own[:, : i + 1], memory_key_mask=other, caches=caches)
            for i in range(5)
        ]
    torch.testing.assert_close(torch.cat(found, 1), expected)


# --- Models over tokens: each text as if it were alone ----------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "learned": {"learned_positions": 20},
    "grouped, window": {"groups": 1, "window": 3},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def stirred(model: Any) -> Any:
    """A model with large weights, so that its logits clearly differ between tokens."""
    for each in model.parameters():
        nn.init.normal_(each, std=0.4)
    return model.eval()


def language_model(kind: str) -> models.LanguageModel:
    return stirred(models.LanguageModel(23, 12, 4, 2, 20, 2, **KINDS[kind], dtype=DOUBLE))


def padded(texts: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """The texts as one tensor, padded with token 0 on one side or on both, and their key mask."""
    x = max(len(each) for each in texts) + (side == "both")
    rows = [(x - len(each)) * (side != "right") // (2 if side == "both" else 1) for each in texts]
    pairs = [
        (F.pad(each, (before, x - len(each) - before)), F.pad(torch.ones(len(each)), (before, x - len(each) - before)))
        for each, before in zip(texts, rows, strict=True)
    ]
    return torch.stack([tokens for tokens, _ in pairs]), torch.stack([keys for _, keys in pairs]).bool()


def texts(*lengths: int) -> list[Tensor]:
    return [torch.randint(23, (n,)) for n in lengths]


everywhere = pytest.mark.parametrize("side", ["left", "right", "both"])


@kinds
@everywhere
def test_logits_of_padded_texts_are_those_of_each_alone(kind: str, side: str) -> None:
    model, alone = language_model(kind), texts(2, 5, 1, 7)
    tokens, keys = padded(alone, side)
    found = model(tokens, key_mask=keys)
    assert found.isfinite().all()
    for row, own, text in zip(found, keys, alone, strict=True):
        torch.testing.assert_close(row[own], model(text))
    torch.testing.assert_close(model.probabilities(tokens, key_mask=keys), found.softmax(-1))


@kinds
@everywhere
@pytest.mark.parametrize("stop", [None, 3])
def test_prompts_of_unequal_length_are_continued_as_each_alone(kind: str, side: str, stop: int | None) -> None:
    model, alone = language_model(kind), texts(2, 5, 1, 7)
    tokens, keys = padded(alone, side)
    found = model.generate(tokens, 9, key_mask=keys, stop=stop)
    assert torch.equal(found[:, : tokens.shape[1]], tokens)
    for row, text in zip(found[:, tokens.shape[1] :], alone, strict=True):
        expected = model.generate(text, 9, stop=stop)[len(text) :]
        assert torch.equal(row[: len(expected)], expected)
        assert row[len(expected) :].eq(stop if stop is not None else -1).all()


def test_a_batch_of_prompts_without_padding_needs_no_mask() -> None:
    model, tokens = language_model("rotary"), torch.randint(23, (3, 4))
    assert torch.equal(model.generate(tokens, 5, key_mask=torch.ones(3, 4).bool()), model.generate(tokens, 5))
    assert torch.equal(model.generate(tokens, 5, key_mask=torch.ones(4).bool()), model.generate(tokens, 5))
    assert torch.equal(model.generate(tokens, 0, key_mask=real(4, 1, 2, 3)), tokens)


def test_prompts_without_any_token_are_refused() -> None:
    model = language_model("rotary")
    with pytest.raises(CircuitError, match="hides all tokens of 2 prompts; begin with at least one token"):
        model.generate(torch.zeros(3, 4, dtype=torch.long), 2, key_mask=real(4, 0, 3, 0))


def test_padding_inside_a_prompt_is_refused() -> None:
    """The positions of what follows would be others than those of the prompt without it."""
    model, mask = language_model("rotary"), torch.ones(3, 5, dtype=torch.bool)
    mask[1, 2], mask[2, 0], mask[2, 3:] = False, False, False
    with pytest.raises(CircuitError, match=r"hides tokens inside 1 prompts, .* move the real tokens together"):
        model.generate(torch.zeros(3, 5, dtype=torch.long), 2, key_mask=mask)


def translator(**options: Any) -> models.SequenceToSequence:
    return stirred(models.SequenceToSequence(23, 12, 4, 2, 20, 1, 2, **options, dropout=0.0, dtype=DOUBLE))


@everywhere
@pytest.mark.parametrize("own", ["mask", "padding token"])
def test_padded_pairs_are_as_each_alone(side: str, own: str) -> None:
    """By `source_key_mask`, or by the padding token of the model, which no text then has."""
    model = translator(padding=0 if own == "padding token" else None)
    sources, targets = ([text.clamp(min=1) for text in texts(*lengths)] for lengths in ((3, 6, 1), (4, 1, 2)))
    (source, source_keys), (target, target_keys) = padded(sources, side), padded(targets, side)
    keys: dict[str, Any] = {"target_key_mask": target_keys}
    if own == "mask":
        keys["source_key_mask"] = source_keys
    found, grown = model(source, target, **keys), model.generate(source, target, 6, **keys)
    torch.testing.assert_close(model.probabilities(source, target, **keys), found.softmax(-1))
    assert torch.equal(grown[:, : target.shape[1]], target)
    for i, (one, other) in enumerate(zip(sources, targets, strict=True)):
        torch.testing.assert_close(found[i][target_keys[i]], model(one, other))
        assert torch.equal(grown[i, target.shape[1] :], model.generate(one, other, 6)[len(other) :])


# --- Compiled, exported, mapped, recorded -----------------------------------------------------------------------------


@pytest.mark.slow
def test_it_compiles_into_one_graph() -> None:
    model, (tokens, keys) = language_model("learned"), padded(texts(2, 5), "left")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, key_mask=keys), model(tokens, key_mask=keys))


@pytest.mark.slow
def test_it_exports_with_free_sizes() -> None:
    layer, free = models.MultiHeadAttention(6, 4, 2, dtype=DOUBLE), torch.export.Dim.DYNAMIC
    given = {"target": random(2, 3, 6), "source": random(2, 5, 6), "key_mask": real(5, 3, 5)}
    shapes = {"target": {0: free, 1: free}, "source": {0: free, 1: free}, "key_mask": {0: free, 1: free}}
    program = torch.export.export(layer, (), given, dynamic_shapes=shapes)
    other = {"target": random(4, 1, 6), "source": random(4, 7, 6), "key_mask": real(7, 3, 7, 1, 2)}
    torch.testing.assert_close(program.module()(**other), layer(**other))


def test_it_maps_over_sequences() -> None:
    layer, target, source, keys = (
        models.MultiHeadAttention(6, 4, 2, dtype=DOUBLE),
        random(3, 4, 6),
        random(3, 5, 6),
        real(5, 3, 5, 1),
    )
    found = torch.vmap(lambda t, s, k: layer(t, s, key_mask=k))(target, source, keys)
    torch.testing.assert_close(found, layer(target, source, key_mask=keys))


@pytest.mark.slow
def test_its_diagram_runs() -> None:
    model, (tokens, keys) = language_model("learned"), padded(texts(2, 5, 4), "left")
    diagram = trace(model, tokens, key_mask=keys)
    torch.testing.assert_close(diagram(tokens, key_mask=keys), model(tokens, key_mask=keys))
    generating = trace(model.generate, tokens, 3, key_mask=keys)
    assert torch.equal(generating(tokens, 3, key_mask=keys), model.generate(tokens, 3, key_mask=keys))


# --- What is said -----------------------------------------------------------------------------------------------------

LAYER: dict[str, Any] = {"m": 8, "k": 4, "h": 2, "f": 12}
TAKEN: dict[str, Callable[[], tuple[Any, tuple[Tensor, ...]]]] = {
    "MultiHeadAttention": lambda: (models.MultiHeadAttention(8, 4, 2), (torch.rand(3, 4, 8), torch.rand(3, 5, 8))),
    "EncoderLayer": lambda: (EncoderLayer(**LAYER), (torch.rand(3, 5, 8),)),
    "Encoder": lambda: (Encoder(**LAYER, depth=1), (torch.rand(3, 5, 8),)),
    "DecoderLayer": lambda: (DecoderLayer(**LAYER), (torch.rand(3, 4, 8), torch.rand(3, 5, 8))),
    "Decoder": lambda: (Decoder(**LAYER, depth=1), (torch.rand(3, 4, 8), torch.rand(3, 5, 8))),
    "Transformer": lambda: (
        Transformer(**LAYER, encoder_depth=1, decoder_depth=1), (torch.rand(3, 5, 8), torch.rand(3, 4, 8)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_where_padding_does_not_fit_as_a_mask_the_error_names_its_argument(name: str) -> None:
    model, inputs = TAKEN[name]()
    x = inputs[0].shape[-2]
    masks = [each for each in inspect.signature(model.forward).parameters if each.endswith("mask")]
    padding = {"mask": "key_mask", "memory_mask": "memory_key_mask", "target_mask": "target_key_mask"}
    for mask in [each for each in masks if "key" not in each and "head" not in each]:
        named = "source_key_mask" if name == "Transformer" and mask != "target_mask" else padding[mask]
        assert named in masks
        with pytest.raises(ShapeError, match=rf"`y x`, shared by the batch; for padding, .* argument {named}"):
            model(*inputs, **{mask: torch.ones(3, x).bool()})


@pytest.mark.slow
def test_the_call_of_torchs_attention_is_answered() -> None:
    layer = models.MultiHeadAttention(8, 4, 2)
    target, source, value = torch.rand(3, 4, 8), torch.rand(3, 5, 8), torch.rand(3, 5, 8)
    told = r"layer\(query, key, value\) of nn.MultiheadAttention is layer\(target, source\) here"
    with pytest.raises(ShapeError, match=told):
        layer(target, source, value)
    with pytest.raises(ShapeError, match=told):
        layer(target, target.clone(), target.clone())
    square = torch.rand(3, 8, 8)  # as many vectors as they are wide: it would fit as a mask
    for same in (target, source, square):
        with pytest.raises(CircuitError, match=told):
            layer(same, same, same)
    other = torch.rand(3, 8, 8)
    for taken in ((other, square, square), (other, square, other), (square, square, square)):
        with pytest.raises(CircuitError, match="mask is the (source|target) itself; " + told):
            layer(*taken)
        with pytest.raises(CircuitError, match=told):
            trace(layer, *taken)
        torch._dynamo.reset()
        with pytest.raises(Unsupported, match=told):
            torch.compile(layer, fullgraph=True, backend="eager")(*taken)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(other, square, square.clone()), layer(other, square, mask=square.clone()))
    torch._dynamo.reset()


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_input_is_no_mask_of_a_layer(norm_first: bool) -> None:
    """As many vectors as they are wide, so that an input would fit as a mask."""
    options: dict[str, Any] = LAYER | {"norm_first": norm_first}
    target, memory = torch.rand(3, 8, 8), torch.rand(3, 8, 8)
    encoder, decoder = EncoderLayer(**options), DecoderLayer(**options)
    for layer in (encoder, Encoder(**options, depth=2)):
        with pytest.raises(CircuitError, match=r"EncoderLayer.forward: mask is the target itself; a mask is bool, or"):
            layer(target, target)
    calls = {
        ("mask", "memory"): (memory,), ("mask", "target"): (target,), ("memory_mask", "memory"): (None, memory),
    }  # fmt: skip
    for (mask, given), masks in calls.items():
        with pytest.raises(CircuitError, match=rf"DecoderLayer.forward: {mask} is the {given} itself"):
            decoder(target, memory, *masks)
    encoder(target, target.clone())
    decoder(target, memory, memory.clone())


def test_a_batch_is_not_taken_for_heads() -> None:
    query, key = torch.rand(4, 4, 3, 6), torch.rand(4, 4, 5, 6)
    for way in (nullcontext, definitions):
        with way(), pytest.raises(CircuitError, match=r"4 5 and 4 4 5 6; .* key_mask\[:, None\] for keys with heads"):
            attention(query, key, key, key_mask=torch.ones(4, 5).bool())


@pytest.mark.parametrize("dtype", [torch.float32, torch.long])
def test_a_key_mask_is_bool(dtype: torch.dtype) -> None:
    layer, target = models.MultiHeadAttention(8, 4, 2), torch.rand(3, 4, 8)
    with pytest.raises(ShapeError, match=r"torch.bool is expected\n(.*\n)* .* of ones and zeros: key_mask.bool\(\)"):
        layer(target, target, key_mask=torch.ones(3, 4, dtype=dtype))
    with pytest.raises(ShapeError, match=r"torch.bool is expected"):
        language_model("rotary")(torch.ones(3, 4, dtype=torch.long), key_mask=torch.ones(3, 4, dtype=dtype))


def test_two_axes_are_always_queries_and_keys() -> None:
    """Also where the batch is as large as the target is long."""
    layer, target, source = models.MultiHeadAttention(8, 4, 2), torch.rand(4, 4, 8), torch.rand(4, 5, 8)
    mask = torch.rand(4, 5) < 0.7
    torch.testing.assert_close(layer(target, source, mask), layer(target, source, mask.expand(4, 4, 5)))


TAKES_MASK = [
    attention, grouped_attention, models.MultiHeadAttention.forward, models.MultiHeadAttention.recall,
    EncoderLayer.forward, DecoderLayer.forward, Encoder.forward, Decoder.forward, Transformer.forward,
    VisualAttention.forward,
]  # fmt: skip


@pytest.mark.parametrize("function", TAKES_MASK, ids=lambda each: each.circuit.name)
def test_the_first_line_says_what_a_mask_means(function: Any) -> None:
    assert "mask True means *may attend*" in (inspect.getdoc(function) or "").splitlines()[0]


def test_these_are_all_that_take_a_mask() -> None:
    classes: list[Any] = [each for each in vars(models).values() if inspect.isclass(each)]
    found = [find_circuit(each.forward) for each in classes if hasattr(each, "forward")]
    named = {
        circuit.name for circuit in found if circuit is not None and {"mask", "source_mask"} & set(circuit.optional)
    }
    assert named <= {each.circuit.name for each in TAKES_MASK}
    assert named


@pytest.mark.parametrize("one", ["bool", "floating"])
@pytest.mark.parametrize("two", ["bool", "floating"])
def test_masks_of_both_kinds_are_combined_number_by_number(one: str, two: str) -> None:
    """What a floating mask adds stays, where neither masks a key out."""
    allowed = torch.rand(2, 5, 6) < 0.7
    added = random(2, 5, 6).masked_fill(torch.rand(2, 5, 6) < 0.2, -torch.inf)
    masks = [allowed[i] if kind == "bool" else added[i] for i, kind in enumerate((one, two))]
    found = combine(*masks)
    assert found.dtype == (torch.bool if one == two == "bool" else DOUBLE)
    for i in range(5):
        for j in range(6):
            parts = [mask[i, j].item() for mask in masks]
            numbers = [(0.0 if part else -torch.inf) if isinstance(part, bool) else part for part in parts]
            expected = sum(numbers) if found.dtype == DOUBLE else all(parts)
            assert found[i, j].item() == pytest.approx(expected)
