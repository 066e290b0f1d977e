import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, definitions, repeat, trace
from models.attention import MultiHeadAttention
from models.parts.positions import RotaryPositions
from models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer

SMALL: dict[str, Any] = {"m": 12, "k": 3, "h": 4, "f": 20}
KINDS: dict[str, Callable[..., nn.Module]] = {
    "EncoderLayer": EncoderLayer,
    "DecoderLayer": DecoderLayer,
    "Encoder": lambda **options: Encoder(depth=2, **options),
    "Decoder": lambda **options: Decoder(depth=2, **options),
    "Transformer": lambda **options: Transformer(encoder_depth=2, decoder_depth=2, dropout=0.0, **options),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def inputs(kind: str, *lead: int, m: int = 12, x: int = 7, y: int = 5, **options: Any) -> list[Tensor]:
    """Inputs for a model of this kind."""
    source, target = torch.randn(*lead, x, m, **options), torch.randn(*lead, y, m, **options)
    if kind.startswith("Encoder"):
        return [source]
    return [source, target] if kind == "Transformer" else [target, source]


def randomized(model: nn.Module) -> nn.Module:
    """The model with all parameters drawn at random, biases and norms too."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def weighted(output: Tensor) -> Tensor:
    """A sum with a different weight for every number."""
    return (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()


def gradients(output: Tensor, model: nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(weighted(output), parameters), strict=True))


# --- torch's own layers and stacks ------------------------------------------------------------------------------------


def theirs(kind: str, dtype: torch.dtype = torch.float32, final_norm: bool = True, **options: Any) -> Any:
    """torch's module of the same kind, small, with random parameters."""
    options = {"dropout": 0.0, "batch_first": True, "dtype": dtype} | options
    if kind == "Transformer":
        return randomized(nn.Transformer(12, 4, 2, 2, 20, **options))
    layer: Any = nn.TransformerEncoderLayer if kind.startswith("Encoder") else nn.TransformerDecoderLayer
    layer = layer(12, 4, 20, **options)
    if kind.endswith("Layer"):
        return randomized(layer)
    bias = options.get("bias", True)
    norm = nn.LayerNorm(12, options.get("layer_norm_eps", 1e-5), bias=bias, dtype=dtype) if final_norm else None
    if kind == "Encoder":
        return randomized(nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False))
    return randomized(nn.TransformerDecoder(layer, 2, norm))


def from_torch(kind: str, model: Any) -> Any:
    return {each.__name__: each for each in (EncoderLayer, DecoderLayer, Encoder, Decoder, Transformer)}[
        kind
    ].from_torch(model)


def masks(kind: str, b: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same masks for this library and for torch, whose bool masks are inverted and where causal is a mask."""
    source, target = (
        (torch.rand(7, 7) < 0.6) | torch.eye(7, dtype=torch.bool),
        torch.ones(5, 5, dtype=torch.bool).tril(),
    )
    kept = (
        torch.arange(7) < torch.arange(7, 7 - b, -1)[:, None]
    )  # each example is one vector shorter than the previous one
    memory = torch.randn(5, 7)
    own = source & kept[:, None, :]
    allowed = memory.masked_fill(~repeat(kept, "b x -> b y x", y=5), -torch.inf)
    floating = allowed[0].where(allowed[0] > -torch.inf, 0.0)
    if kind.startswith("Encoder"):
        name = "src_mask" if kind == "EncoderLayer" else "mask"
        return {"mask": own}, {name: ~source, "src_key_padding_mask": ~kept}
    if kind.startswith("Decoder"):
        return {"memory_mask": allowed}, {
            "tgt_mask": ~target, "memory_mask": floating, "memory_key_padding_mask": _floating(~kept),
        }  # fmt: skip
    return {"source_mask": own, "memory_mask": allowed}, {
        "src_mask": ~source, "src_key_padding_mask": ~kept, "tgt_mask": ~target, "memory_mask": floating,
        "memory_key_padding_mask": _floating(~kept),
    }  # fmt: skip


def _floating(opposite: Tensor) -> Tensor:
    return torch.zeros(opposite.shape).masked_fill(opposite, -torch.inf)


def in_torchs_order(model: Any, kind: str, given: list[Tensor], **options: Any) -> Tensor:
    """The output of torch's model; inputs and output have the batch axis first."""
    attention = next(each for each in model.modules() if isinstance(each, nn.MultiheadAttention))
    if attention.batch_first:
        return model(*given, **options)
    return model(*(each.transpose(0, 1) for each in given), **options).transpose(0, 1)


def causal(kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments that make torch's model causal."""
    return {} if kind.startswith("Encoder") else {"tgt_mask": _floating(~torch.ones(5, 5).tril().bool()).to(dtype)}


@pytest.mark.every(10)
@every_kind
@pytest.mark.parametrize("norm_first", [False, True], ids=["norms after", "norms first"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_first", [False, True])
def test_values_and_gradients_are_torchs(
    kind: str, norm_first: bool, activation: str, dtype: torch.dtype, batch_first: bool
) -> None:
    """The gradients of torch's model become the weights of a copy of it, so that `from_torch` renames them."""
    options = {"norm_first": norm_first, "activation": activation, "batch_first": batch_first}
    other = theirs(kind, dtype, **options)
    ours, given = from_torch(kind, other), inputs(kind, 3, dtype=dtype)
    expected, answer = in_torchs_order(other, kind, given, **causal(kind, dtype)), ours(*given)
    torch.testing.assert_close(answer, expected)
    weighted(expected).backward()
    graded = copy.deepcopy(other)
    for parameter, gradient in zip(graded.parameters(), other.parameters(), strict=True):
        parameter.data = gradient.grad
    wanted = dict(from_torch(kind, graded).named_parameters())
    largest = max(each.abs().max().item() for each in wanted.values())
    atol = 1e-5 * largest if dtype == torch.float32 else 1e-7  # the gradient of a key's bias is 0 up to rounding
    for name, gradient in gradients(answer, ours).items():
        torch.testing.assert_close(
            gradient, wanted[name].detach(), rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.every(3)
@every_kind
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_masks_are_torchs(kind: str, norm_first: bool, training: bool) -> None:
    """In evaluation without gradients, torch's encoder uses its fast path."""
    other = theirs(kind, norm_first=norm_first).train(training)
    ours, given = from_torch(kind, other), inputs(kind, 3)
    our_masks, their_masks = masks(kind, 3)
    with torch.no_grad():
        torch.testing.assert_close(ours(*given, **our_masks), other(*given, **their_masks))
        assert not torch.allclose(ours(*given), ours(*given, **our_masks))


@pytest.mark.parametrize("kind", ["Transformer", "Decoder", "DecoderLayer"])
def test_without_causal_all_see_all(kind: str) -> None:
    other, given = theirs(kind), inputs(kind, 3)
    torch.testing.assert_close(from_torch(kind, other)(*given, causal=False), other(*given))


def test_causal_encoders_are_masked_ones() -> None:
    other = theirs("Encoder")
    (given,) = inputs("Encoder", 3)
    expected = other(given, mask=~torch.ones(7, 7).tril().bool())
    torch.testing.assert_close(from_torch("Encoder", other)(given, causal=True), expected)


@every_kind
@pytest.mark.parametrize("norm_first", [False, True])
def test_dropout_is_where_torch_has_it(kind: str, norm_first: bool) -> None:
    """The same seed drops the same entries; for one example, since torch has the axes of a batch in another order."""
    other, given = theirs(kind, dropout=0.4, norm_first=norm_first), inputs(kind)
    ours, answers = from_torch(kind, other), []
    for model, options in ((ours, {}), (other, causal(kind, torch.float32))):
        torch.manual_seed(1)
        answers.append(model(*given, **options))
    torch.testing.assert_close(*answers)
    ours.eval()
    assert torch.equal(ours(*given), ours(*given))
    torch.testing.assert_close(ours(*given), other.eval()(*given, **causal(kind, torch.float32)))


@every_kind
@pytest.mark.parametrize("options", [{"bias": False}, {"layer_norm_eps": 0.3}])
def test_other_settings_are_torchs(kind: str, options: dict[str, Any]) -> None:
    other, given = theirs(kind, **options), inputs(kind, 3)
    torch.testing.assert_close(from_torch(kind, other)(*given), other(*given, **causal(kind, torch.float32)))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.ELU(0.5)])
@pytest.mark.parametrize("kind", ["EncoderLayer", "DecoderLayer", "Encoder"])
def test_an_activation_may_be_a_module(kind: str, activation: nn.Module) -> None:
    other, given = theirs(kind, activation=activation), inputs(kind, 3)
    torch.testing.assert_close(from_torch(kind, other)(*given), other(*given, **causal(kind, torch.float32)))


def test_a_module_as_activation_is_lost_in_torchs_decoders() -> None:
    """torch 2.13 copies decoder layers with relu instead: encoder and decoder differ, which raises CircuitError."""
    with pytest.raises(CircuitError, match=r"activation is GELU\(.*\) and ReLU\(\) is not supported"):
        Transformer.from_torch(theirs("Transformer", activation=nn.GELU("tanh")))


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_the_last_norm_may_be_absent(kind: str) -> None:
    other, given = theirs(kind, final_norm=False), inputs(kind, 3)
    ours = from_torch(kind, other)
    assert ours.norm is None
    torch.testing.assert_close(ours(*given), other(*given, **causal(kind, torch.float32)))


@every_kind
def test_from_torch_copies(kind: str) -> None:
    other = theirs(kind, torch.float64).eval()
    ours = from_torch(kind, other)
    assert {(each.dtype, each.device.type) for each in ours.parameters()} == {(torch.float64, "cpu")}
    assert not any(module.training for module in ours.modules())
    before = copy.deepcopy(ours.state_dict())
    randomized(other)
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
def test_torchs_default_model_has_an_equal() -> None:
    other = nn.Transformer(batch_first=True).eval()
    ours = Transformer.from_torch(other)
    assert count(ours) == count(other) == count(Transformer(device="meta")) == 44_140_544
    assert ours.state_dict().keys() == Transformer(device="meta").state_dict().keys()
    source, target = torch.randn(2, 7, 512), torch.randn(2, 5, 512)
    with torch.no_grad():
        expected = other(source, target, tgt_mask=~torch.ones(5, 5).tril().bool())
        torch.testing.assert_close(ours(source, target), expected)


def changed(model: Any, **parts: Any) -> Any:
    """torch's model with some submodules replaced, given by their dotted names."""
    for name, part in parts.items():
        owner, _, attribute = name.replace("__", ".").rpartition(".")
        setattr(model.get_submodule(owner), attribute, part)
    return model


class Other(nn.TransformerEncoderLayer):
    pass


@pytest.mark.parametrize(
    ("kind", "parts", "said"),
    [
        ("EncoderLayer", {"activation": torch.tanh}, "activation tanh"),
        ("EncoderLayer", {"norm1": nn.RMSNorm(12)}, "RMSNorm"),
        ("EncoderLayer", {"norm2": nn.LayerNorm(12, 1e-3)}, "eps of 1e-05 and 0.001"),
        ("DecoderLayer", {"dropout2": nn.Dropout(0.5)}, "dropout of 0.0 and 0.5"),
        ("DecoderLayer", {"multihead_attn": nn.MultiheadAttention(12, 2)}, "h of 2 and 4"),
        ("DecoderLayer", {"linear1": nn.Linear(12, 20, bias=False)}, "bias of False and True"),
        ("DecoderLayer", {"multihead_attn": nn.MultiheadAttention(12, 4, add_zero_attn=True)}, "add_zero_attn"),
        ("Encoder", {"layers": nn.ModuleList()}, "is not supported"),
        ("Encoder", {"layers": nn.ModuleList([nn.Linear(2, 2)])}, "a layer of class Linear"),
        ("Encoder", {"layers": nn.ModuleList([Other(12, 4)])}, "a layer of class Other"),
        ("Encoder", {"layers__0__norm_first": True}, "norm_first is True and False"),
        ("Encoder", {"layers__0__activation": F.gelu}, "activation is GELU.* and ReLU"),
        ("Encoder", {"norm": nn.RMSNorm(12)}, "a norm of class RMSNorm"),
        ("Decoder", {"norm": nn.LayerNorm(12, 1e-3)}, "eps is 0.001 and 1e-05"),
        ("Transformer", {"encoder": nn.Identity()}, "Identity is not supported"),
        ("Transformer", {"decoder__norm": None}, "final_norm is True and False"),
    ],
)
def test_from_torch_names_what_is_not_supported(kind: str, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        from_torch(kind, changed(theirs(kind), **parts))


# --- Parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    m=st.integers(1, 6),
    k=st.integers(1, 5),
    g=st.integers(1, 2),
    n=st.integers(1, 3),
    f=st.integers(1, 9),
    depths=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    final_norm=st.booleans(),
)
def test_parameters_are_as_many_as_the_formula_says(
    m: int, k: int, g: int, n: int, f: int, depths: tuple[int, int], bias: bool, final_norm: bool
) -> None:
    h = g * n
    options: dict[str, Any] = {"m": m, "k": k, "h": h, "f": f, "bias": bias, "device": "meta"}
    encoder = 4 * m * h * k + 2 * m * f + (3 * h * k + f + 6 * m if bias else 2 * m)
    decoder = 8 * m * h * k + 2 * m * f + (6 * h * k + f + 9 * m if bias else 3 * m)
    assert count(EncoderLayer(**options)) == encoder
    assert count(DecoderLayer(**options)) == decoder
    fewer = 2 * m * h * k - 2 * m * g * k + bias * 2 * (h - g) * k
    assert count(EncoderLayer(**options, groups=g)) == encoder - fewer
    assert count(DecoderLayer(**options, groups=g)) == decoder - 2 * fewer
    norm = final_norm * (2 * m if bias else m)
    both = [depth * each + norm for depth, each in zip(depths, (encoder, decoder), strict=True)]
    assert count(Encoder(depth=depths[0], final_norm=final_norm, **options)) == both[0]
    assert count(Decoder(depth=depths[1], final_norm=final_norm, **options)) == both[1]
    model = Transformer(encoder_depth=depths[0], decoder_depth=depths[1], final_norm=final_norm, **options)
    assert count(model) == sum(both)


def test_names_of_the_state_are_a_promise() -> None:
    attention = [f"{box}.{kind}" for box in ("Lq", "Lk", "Lv", "Lo") for kind in ("weight", "bias")]
    norm = ["weight", "bias"]
    rest = ["feed_forward.L1.weight", "feed_forward.L1.bias", "feed_forward.L2.weight", "feed_forward.L2.bias"]
    rest += [f"feed_forward_norm.{each}" for each in norm]
    own = [*(f"attention.{each}" for each in attention), *(f"attention_norm.{each}" for each in norm)]
    asked = [f"memory_{each}" for each in own]
    names = [f"encoder.layers.{i}.{each}" for i in range(2) for each in (*own, *rest)]
    names += [f"encoder.norm.{each}" for each in norm]
    names += [f"decoder.layers.{i}.{each}" for i in range(2) for each in (*own, *asked, *rest)]
    names += [f"decoder.norm.{each}" for each in norm]
    assert list(KINDS["Transformer"](**SMALL).state_dict()) == names
    assert list(EncoderLayer(**SMALL).state_dict()) == [*own, *rest]
    assert list(DecoderLayer(**SMALL).state_dict()) == [*own, *asked, *rest]


def test_weights_are_initialized_as_in_torch() -> None:
    """Each weight has the standard deviation of torch's, within 5 %: each has over 4,000 numbers."""
    other = nn.Transformer(64, 4, 1, 1, 128)
    begun = Transformer(64, 16, 4, 128, 1, 1)
    for name, weight in Transformer.from_torch(other).named_parameters():
        ours = begun.get_parameter(name)
        if weight.ndim > 1:
            torch.testing.assert_close(ours.std(), weight.std(), rtol=0.05, atol=0)
            torch.testing.assert_close(ours.abs().max(), weight.abs().max(), rtol=0.05, atol=0)
        elif "norm" in name:
            assert torch.equal(ours, weight)
        else:
            assert ours.eq(0).all()


# --- Shapes -----------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("lead", [(), (2,), (2, 19)])
def test_shapes_by_the_signature(kind: str, lead: tuple[int, ...]) -> None:
    model = KINDS[kind](m=13, k=5, h=7, f=11, device="meta")
    given = inputs(kind, *lead, m=13, x=17, y=23, device="meta")
    assert model(*given).shape == (*lead, 17 if kind.startswith("Encoder") else 23, 13)


@every_kind
def test_sizes_that_clash_are_named(kind: str) -> None:
    with pytest.raises(ShapeError, match=r"m is 11 here, but 12"):
        KINDS[kind](**SMALL)(*inputs(kind, 2, m=11))
    name = {"E": "mask", "D": "memory_mask", "T": "source_mask"}[kind[0]]
    with pytest.raises(ShapeError, match=name):
        KINDS[kind](**SMALL)(*inputs(kind, 2), **{name: torch.ones(1, 1, dtype=torch.bool)})


def test_impossible_arguments_are_refused() -> None:
    for stack in (Encoder, Decoder):
        with pytest.raises(CircuitError, match="depth is 0; it may be 1 or more"):
            stack(**SMALL, depth=0)
    with pytest.raises(CircuitError, match="4 heads cannot share 3 groups"):
        EncoderLayer(**SMALL, groups=3)
    decoder, (target, memory) = Decoder(**SMALL, depth=2).eval(), inputs("Decoder", 2)
    with torch.no_grad(), pytest.raises(CircuitError, match="another memory"):
        decoder(target, memory.clone(), caches=decoder.cache(memory, 5))


# --- Dependencies -----------------------------------------------------------------------------------------------------


def test_an_encoder_does_not_know_the_order_of_its_source() -> None:
    model, (source,) = (
        randomized(KINDS["Encoder"](**SMALL, dtype=torch.float64)),
        inputs("Encoder", dtype=torch.float64),
    )
    order = torch.randperm(7)
    torch.testing.assert_close(model(source[order]), model(source)[order])


@pytest.mark.parametrize("norm_first", [False, True])
def test_nothing_sees_what_comes_after_it(norm_first: bool) -> None:
    """The Jacobian with respect to the target is zero above its block diagonal, and nonzero on it and below."""
    model: Any = randomized(KINDS["Transformer"](**SMALL, norm_first=norm_first, dtype=torch.float64))
    source, target = inputs("Transformer", dtype=torch.float64)
    jacobian = torch.func.jacrev(model, argnums=1)(source, target).abs().sum((1, 3))  # y y
    assert jacobian.triu(1).eq(0).all()
    assert jacobian[torch.ones(5, 5).tril().bool()].gt(0).all()
    all_of_it = torch.func.jacrev(model, argnums=0)(source, target).abs().sum((1, 3))  # y x
    assert all_of_it.gt(0).all()


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True}, {"groups": 2}, {"rotary": RotaryPositions(4)}, {"window": 2}]
)
@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1), (3, 2), (2, 1, 2)])
def test_decoding_in_pieces_is_decoding_at_once(options: dict[str, Any], pieces: tuple[int, ...]) -> None:
    """For both layers and for a stack; the memory's keys and values are computed once."""
    made: dict[str, Any] = {"m": 12, "k": 4, "h": 4, "f": 20, "dtype": torch.float64}
    layer: Any = randomized(DecoderLayer(**made, **options))
    alone: Any = randomized(EncoderLayer(**made, **options))
    target, memory = inputs("Decoder", 2, dtype=torch.float64)
    mask = torch.rand(5, 7) < 0.7
    layer.memory_attention.Lk.register_forward_hook(lambda *_: times.append(1))
    times: list[int] = []
    with torch.no_grad():
        expected = layer(target, memory, memory_mask=mask), alone(target, causal=True)
        times.clear()
        cache, own, answers = layer.cache(memory, 5), alone.attention.cache(5, (2,)), []
        for piece, rows in zip(target.split(pieces, 1), mask.split(pieces), strict=True):
            answers.append((layer(piece, memory, memory_mask=rows, cache=cache), alone(piece, causal=True, cache=own)))
    assert len(times) == 1
    for whole, parts in zip(expected, zip(*answers, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_stack_decodes_in_pieces() -> None:
    decoder: Any = randomized(Decoder(**SMALL, depth=3, dtype=torch.float64))
    target, memory = inputs("Decoder", 2, dtype=torch.float64)
    with torch.no_grad():
        caches = decoder.cache(memory, 5)
        parts = [decoder(piece, memory, caches=caches) for piece in target.split(2, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), decoder(target, memory))


@pytest.mark.parametrize("norm_first", [False, True], ids=["norms after", "norms first"])
def test_a_layer_of_some_vectors_is_the_same_of_all(norm_first: bool) -> None:
    """With a source, a layer computes only some vectors; values and gradients equal those of the full layer."""
    layer = randomized(EncoderLayer(6, 4, 2, 8, norm_first=norm_first, dtype=torch.float64))
    source = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(3, 5, 5) < 0.5) | torch.eye(5, dtype=torch.bool)
    head_mask = torch.randn(2, 5, 5, dtype=torch.float64)
    whole = layer(source, mask, head_mask=head_mask)[:, 1:3]
    some = layer(source[:, 1:3], mask[:, 1:3], head_mask=head_mask[:, 1:3], source=source)
    torch.testing.assert_close(some, whole)
    wanted = [source, *layer.parameters()]
    weights = torch.randn_like(whole)
    found, expected = (torch.autograd.grad((each * weights).sum(), wanted) for each in (some, whole))
    torch.testing.assert_close(found, expected)


def test_layers_pass_their_options_to_attention() -> None:
    layer = EncoderLayer(12, 4, 4, 20, groups=2, rotary=RotaryPositions(4), window=3, dropout=0.25)
    attention = MultiHeadAttention(12, 4, 4, groups=2, rotary=RotaryPositions(4), window=3, bias=True)
    attention.load_state_dict(layer.attention.state_dict())
    source, head_mask = torch.randn(2, 7, 12), torch.randn(4, 7, 7)
    layer.eval()
    found = attention(source, source, head_mask=head_mask)
    expected = layer.attention_norm(source + found)
    expected = layer.feed_forward_norm(expected + layer.feed_forward(expected))
    torch.testing.assert_close(layer(source, head_mask=head_mask), expected)
    decoder = DecoderLayer(12, 4, 4, 20, groups=2, rotary=RotaryPositions(4), window=3)
    assert (decoder.attention.window, decoder.memory_attention.window) == (3, None)
    assert decoder.memory_attention.rotary is None
    assert decoder.attention.rotary is not None
    assert decoder.attention.g == decoder.memory_attention.g == 2


# --- In training code -------------------------------------------------------------------------------------------------


@every_kind
def test_a_step_of_training_lowers_the_loss(kind: str) -> None:
    model, given = KINDS[kind](**SMALL), inputs(kind, 4)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 0.01), []
    wanted = torch.randn_like(model(*given))
    for _ in range(4):
        loss = F.mse_loss(model(*given), wanted)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


@pytest.mark.slow
@every_kind
def test_with_norms_first_it_compiles_into_one_graph(kind: str) -> None:
    """Forward and reverse pass."""
    torch.compiler.reset()
    model, given = (
        randomized(KINDS[kind](**SMALL, norm_first=True, dtype=torch.float64)),
        inputs(kind, 2, dtype=torch.float64),
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, answer = model(*given), compiled(*given)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, model), gradients(expected, model))


@pytest.mark.slow
@pytest.mark.every(1, 2)
@pytest.mark.parametrize("dynamic", [True, False])
def test_it_compiles_to_code_in_one_graph(dynamic: bool) -> None:
    torch.compiler.reset()
    model = randomized(KINDS["Transformer"](**SMALL))
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for b in (2, 3):
        given = inputs("Transformer", b)
        expected, answer = model(*given), compiled(*given)
        torch.testing.assert_close(
            answer, expected, rtol=1e-4, atol=1e-5
        )  # sums are in another order, and norms amplify the differences
        ours, wanted = gradients(answer, model), gradients(expected, model)
        largest = max(each.abs().max().item() for each in wanted.values())
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5 * largest)  # for the same reason


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
@every_kind
def test_it_maps_over_examples_and_models(kind: str) -> None:
    model, other = (randomized(KINDS[kind](**SMALL)).double() for _ in range(2))
    given = [each.double() for each in inputs(kind, 2)]
    torch.testing.assert_close(torch.vmap(model)(*given), model(*given))
    stacked = {name: torch.stack([value, other.state_dict()[name]]) for name, value in model.state_dict().items()}
    both = torch.vmap(lambda state: torch.func.functional_call(model, state, tuple(given)))(stacked)
    torch.testing.assert_close(both, torch.stack([model(*given), other(*given)]))


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", ["EncoderLayer", "DecoderLayer"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_derivatives_first_and_second_are_right(kind: str, norm_first: bool) -> None:
    """Second derivatives of the definitions: torch's fused kernel has none."""
    options: dict[str, Any] = {"m": 4, "k": 2, "h": 2, "f": 3, "activation": nn.GELU, "dtype": torch.float64}
    model = randomized(KINDS[kind](norm_first=norm_first, **options))
    given = [each.requires_grad_() for each in inputs(kind, 1, m=4, x=3, y=2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(model, given)
    with definitions():
        assert torch.autograd.gradgradcheck(model, given)


@pytest.mark.slow
def test_it_exports_with_any_lengths() -> None:
    model = randomized(KINDS["Transformer"](**SMALL))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        model, tuple(inputs("Transformer", 2)), dynamic_shapes={"source": free, "target": free}
    )
    given = inputs("Transformer", 3, x=4, y=9)
    torch.testing.assert_close(program.module()(*given), model(*given))


# --- Its table --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_shows_the_figure() -> None:
    model = Transformer(encoder_depth=2, decoder_depth=3, device="meta").eval()
    table = trace(model).table(depth=None, width=300)
    lines = table.splitlines()
    assert "x 512, y 512 -> y 512" in lines[1]
    assert f" {count(model):,}" in lines[1]
    assert (table.count("×2"), table.count("×3")) == (1, 1)
    assert "softmax over x" in table
    assert "fixed by" not in table
    for part in (
        "encoder Encoder",
        "decoder Decoder",
        "memory_attention MultiHeadAttention",
        "feed_forward FeedForward",
    ):
        assert part in table
