"""Models whose boxes were replaced: linear maps that are quantized or wrapped by an adapter, and ensembles by vmap."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.func import functional_call, grad, stack_module_state

from circuits import CircuitError
from models import LanguageModel, MultiHeadAttention, SequenceToSequence, Transformer, VisionTransformer
from models.attention import attention, grouped_attention
from models.parts.cache import KeyValueCache
from models.transformer import DecoderLayer, EncoderLayer

pytestmark = pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")


class Adapter(nn.Module):
    """A linear map plus a product of two thin ones, as LoRA adds it; it has no `weight`."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.A = nn.Parameter(torch.randn(base.in_features, 2))
        self.B = nn.Parameter(torch.randn(2, base.out_features))

    def forward(self, input: Tensor) -> Tensor:
        return self.base(input) + input @ self.A @ self.B


class Half(nn.Module):
    """A linear map that computes in half precision, whatever the dtype of the weights of other maps."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.bfloat16()

    def forward(self, input: Tensor) -> Tensor:
        return self.base(input.bfloat16())


def replace_linear(model: nn.Module, replacement: Callable[[nn.Linear], nn.Module], only: str = "") -> Any:
    """Replace each nn.Linear in a model, or those whose name has `only`."""
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            setattr(model, name, replacement(child) if only in name else child)
        else:
            replace_linear(child, replacement, only)
    return model


def quantized(model: nn.Module) -> Any:
    replaced: Any = quantize_dynamic
    return replaced(model, {nn.Linear}, dtype=torch.qint8)


def decoder_only(**options: Any) -> LanguageModel:
    return LanguageModel(11, m=16, k=8, h=2, f=32, depth=2, **options).eval()


def encoder_decoder(**options: Any) -> SequenceToSequence:
    return SequenceToSequence(11, m=16, k=8, h=2, f=32, encoder_depth=1, decoder_depth=1, **options).eval()


def most_likely(model: Any, source: Tensor, count: int) -> Tensor:
    """Generate without a cache: the whole prefix is computed for every token."""
    tokens, given = (source[:, :1], [source]) if isinstance(model, SequenceToSequence) else (source, [])
    for _ in range(count):
        tokens = torch.cat((tokens, model(*given, tokens)[:, -1:].argmax(-1)), 1)
    return tokens


def generate(model: Any, source: Tensor, count: int) -> Tensor:
    if isinstance(model, SequenceToSequence):
        return model.generate(source, source[:, :1], count)
    return model.generate(source, count)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("change", [quantized, lambda model: replace_linear(model, Adapter)], ids=["int8", "adapter"])
@pytest.mark.parametrize("make", [decoder_only, encoder_decoder])
@torch.no_grad()
def test_generation_with_replaced_linear_maps(make: Any, change: Callable[[Any], Any], tied: bool) -> None:
    """A cached step returns what the whole prefix does, and generation is that of the replaced maps."""
    model = change(make(tied=tied))
    source = torch.randint(11, (3, 5))
    found = generate(model, source, 6)
    assert torch.equal(found, most_likely(model, source, 6))


@torch.no_grad()
def test_a_cache_has_the_dtype_of_the_first_keys_where_only_these_tell_it() -> None:
    model, data = replace_linear(MultiHeadAttention(6, 4, 2), Half, "Lk"), torch.randn(3, 5, 6)
    replace_linear(model, Half, "Lv")
    cache = model.cache(9, (3,))
    keys, values = cache.append(*model.remember(data))
    assert (keys.dtype, values.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (cache.keys.device.type, cache.keys.shape) == ("cpu", (3, 2, 9, 4))
    torch.testing.assert_close((keys, values), model.remember(data))
    with pytest.raises(CircuitError, match=r"keys are torch.float32 on cpu, the cache's torch.bfloat16 on cpu"):
        cache.append(keys.float(), values.float())
    cache.truncate()
    assert cache.append(keys, values)[0].dtype == torch.bfloat16


def test_a_cache_that_waits_for_keys_refuses_those_that_do_not_fit() -> None:
    cache, keys = KeyValueCache(4, 3, 2, (5,), device="meta"), torch.zeros(5, 2, 1, 3)
    with pytest.raises(CircuitError, match=r"batch \[1\] of keys, \[5\] in the cache"):
        cache.append(keys[:1], keys[:1])
    with pytest.raises(CircuitError, match=r"values are torch.float64 on cpu, the cache's torch.float32 on cpu"):
        cache.append(keys, keys.double())
    assert (cache.length, cache.keys.is_meta) == (0, True)
    cache.append(keys.to("meta"), keys.to("meta"))
    with pytest.raises(CircuitError, match=r"keys are torch.float32 on cpu, the cache's torch.float32 on meta"):
        cache.append(keys, keys)


@pytest.mark.parametrize("make", [decoder_only, encoder_decoder])
def test_a_tied_head_without_the_weight_of_its_embedding_is_told(make: Any) -> None:
    model, source = make(), torch.randint(11, (3, 5))
    model.embedding = nn.Sequential(model.embedding)
    with pytest.raises(
        CircuitError, match=r"the head is tied: .* is a torch.nn.modules.container.Sequential, without .* tied=False"
    ):
        generate(model, source, 2)
    untied = make(tied=False)
    expected = generate(untied, source, 2)
    untied.embedding = nn.Sequential(untied.embedding)
    assert torch.equal(generate(untied, source, 2), expected)


# --- Attention that is wrapped as a whole ----------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A module plus a linear map of its first argument, as adapter libraries add one."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.side = nn.Linear(16, 16)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.base(*args, **kwargs) + self.side(args[0])


class Forwarding(Wrapped):
    """It has all attributes of its base, as some wrappers do."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("base", "side") else getattr(self.base, name)


class WithoutCache(Wrapped):
    """It loses the cache."""

    def forward(self, *args: Any, cache: Any = None, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs)


class Twice(Wrapped):
    """It calls its base two times, which appends to the cache twice."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs) + self.base(*args, **kwargs)


def replace(model: Any, names: Callable[[str], bool], wrap: Callable[[nn.Module], nn.Module]) -> Any:
    for name, module in [*model.named_modules()]:
        if names(name):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, wrap(module))
    return model


every_model = pytest.mark.parametrize(
    "make", [decoder_only, encoder_decoder, lambda: encoder_decoder(norm_first=True)], ids=["decoder", "post", "pre"]
)


def compiled(module: nn.Module) -> Any:
    """A module wrapped by torch, whose wrapper has all attributes of what is inside."""
    return torch.compile(module, backend="eager")


def in_decoder(kind: str) -> Callable[[str], bool]:
    """The names of the parts of a language model, or of the decoder of a model of two stacks."""
    return lambda name: "encoder" not in name and name.rpartition(".")[2] == kind


@pytest.mark.parametrize(
    "wrap",
    [Wrapped, lambda each: Wrapped(Wrapped(each)), pytest.param(compiled, marks=pytest.mark.slow)],
    ids=["1", "2", "compiled"],
)
@every_model
@torch.no_grad()
def test_generation_with_wrapped_attention(make: Any, wrap: Callable[[Any], Any]) -> None:
    """What the wrappers add is in every step, also in attention to the memory, and keys are cached below them."""
    model, source = make(), torch.randint(11, (3, 5))
    for kind in ("attention", "memory_attention"):
        replace(model, in_decoder(kind), wrap)
    assert torch.equal(generate(model, source, 6), most_likely(model, source, 6))


@pytest.mark.parametrize("wrap", [Wrapped, Forwarding])
@pytest.mark.parametrize("norm_first", [True, False])
@torch.no_grad()
def test_steps_of_a_layer_with_wrapped_attention_are_the_whole(wrap: type[Wrapped], norm_first: bool) -> None:
    layer: Any = DecoderLayer(16, 8, 2, 32, norm_first=norm_first)
    layer.attention, layer.memory_attention = wrap(layer.attention), wrap(layer.memory_attention)
    target, memory = torch.rand(3, 5, 16), torch.rand(3, 4, 16)
    whole, cache = layer(target, memory), layer.cache(memory, 5)
    steps = torch.cat([layer(each, memory, cache=cache) for each in target.split([2, 1, 1, 1], 1)], 1)
    torch.testing.assert_close(steps, whole)
    encoder: Any = EncoderLayer(16, 8, 2, 32, norm_first=norm_first)
    own = encoder.attention.cache(5, (3,))
    encoder.attention = wrap(encoder.attention)
    steps = torch.cat([encoder(each, causal=True, cache=own) for each in target.split(1, 1)], 1)
    torch.testing.assert_close(steps, encoder(target, causal=True))


@torch.no_grad()
def test_generation_with_wrapped_layers() -> None:
    model, source = decoder_only(), torch.randint(11, (3, 5))
    model.layers = nn.ModuleList(Wrapped(layer) for layer in model.layers)
    assert torch.equal(generate(model, source, 6), most_likely(model, source, 6))
    other = encoder_decoder()
    other.transformer.decoder.layers = nn.ModuleList(Wrapped(layer) for layer in other.transformer.decoder.layers)
    assert torch.equal(generate(other, source, 6), most_likely(other, source, 6))


@every_model
@pytest.mark.parametrize("wrap", [WithoutCache, Twice])
def test_a_wrapper_that_a_cache_cannot_be_used_with_is_named(make: Any, wrap: type[Wrapped]) -> None:
    model, source = replace(make(), in_decoder("attention"), wrap), torch.randint(11, (3, 5))
    with pytest.raises(
        CircuitError, match=rf"{wrap.__name__} has \d+ positions after the call.* `cache` too, and calls"
    ):
        generate(model, source, 8)


@every_model
def test_what_has_no_cache_is_named(make: Any) -> None:
    source = torch.randint(11, (3, 5))
    model = replace(make(), in_decoder("attention"), lambda _: nn.Identity())
    with pytest.raises(CircuitError, match=r"is a \w+ with no modules inside that have a cache, as MultiHeadAttention"):
        generate(model, source, 3)
    pair = replace(make(), in_decoder("attention"), lambda each: Wrapped(nn.ModuleList([each, copy.deepcopy(each)])))
    with pytest.raises(CircuitError, match=r"with 2 modules inside that have a cache"):
        generate(pair, source, 3)


# --- Ensembles --------------------------------------------------------------------------------------------------------

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "attention": (lambda: MultiHeadAttention(8, 4, 2), lambda: (torch.rand(5, 3, 8), torch.rand(5, 4, 8))),
    "groups": (lambda: MultiHeadAttention(8, 4, 4, groups=2), lambda: (torch.rand(5, 3, 8), torch.rand(5, 4, 8))),
    "window": (lambda: MultiHeadAttention(8, 4, 2, window=2), lambda: (torch.rand(5, 3, 8), torch.rand(5, 4, 8))),
    "language": (decoder_only, lambda: (torch.randint(11, (3, 5)),)),
    "sequences": (lambda: encoder_decoder(padding=3), lambda: (torch.randint(11, (3, 5)), torch.randint(11, (3, 4)))),
    "transformer": (lambda: Transformer(8, 4, 2, 16, 1, 1).eval(), lambda: (torch.rand(5, 3, 8), torch.rand(5, 4, 8))),
    "vision": (
        lambda: VisionTransformer(8, 4, m=8, k=4, h=2, f=16, depth=2, classes=3),
        lambda: (torch.rand(5, 3, 8, 8),),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("error")
def test_an_ensemble_under_vmap_takes_no_loop(name: str) -> None:
    """torch warns if it runs an operator in a loop; outputs and gradients are those of each model by itself."""
    make, data = MODELS[name]
    models, inputs = [make().double() for _ in range(3)], data()
    inputs = tuple(each.double() if each.is_floating_point() else each for each in inputs)
    state = stack_module_state(models)

    def outputs(parameters: Any, buffers: Any) -> Tensor:
        return functional_call(models[0], (parameters, buffers), inputs)

    def loss(parameters: Any, buffers: Any) -> Tensor:
        return outputs(parameters, buffers).sin().sum()

    found = torch.vmap(outputs)(*state)
    torch.testing.assert_close(found, torch.stack([each(*inputs) for each in models]))
    gradients = torch.vmap(grad(loss))(*state)
    for i, model in enumerate(models):
        expected = torch.autograd.grad(model(*inputs).sin().sum(), list(model.parameters()))
        torch.testing.assert_close([each[i] for each in gradients.values()], list(expected))


@pytest.mark.parametrize("function", [attention, grouped_attention])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.filterwarnings("error")
def test_attention_of_many_queries_under_vmap(function: Any, masked: bool) -> None:
    """Mapped queries of a shared batch of keys, nested, under a mask with a row that may attend to nothing."""
    query, key = torch.randn(2, 3, 5, 4, 6, 8), torch.randn(5, 4 if function is attention else 2, 7, 8)
    mask = (torch.rand(4, 6, 7) < 0.5).index_fill(1, torch.tensor(2), False) if masked else None

    def attend(one: Tensor) -> Tensor:
        return function(one, key, key, mask, causal=not masked)

    found = torch.vmap(torch.vmap(attend))(query)
    torch.testing.assert_close(found, torch.stack([torch.stack([attend(one) for one in row]) for row in query]))


def test_outside_vmap_the_fused_operator_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under a gradient of torch.func, where no tensor is mapped."""
    called = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or fused(*a, **k)
    )
    query = torch.randn(5, 4, 6, 8)
    attention(query, query, query)
    grad(lambda query: attention(query, query, query).sum())(query)
    assert len(called) == 2
    with warnings.catch_warnings():
        torch.vmap(lambda query: attention(query, query, query))(torch.randn(3, 5, 4, 6, 8))
    assert len(called) == 2


def test_adapters_are_part_of_what_is_generated() -> None:
    """The cached keys are those of the adapter, not of the map below it."""
    model = decoder_only()
    source = torch.randint(11, (3, 5))
    wrapped = replace_linear(copy.deepcopy(model), Adapter)
    assert not torch.equal(wrapped(source), model(source))
    assert torch.equal(generate(wrapped, source, 6), most_likely(wrapped, source, 6))
