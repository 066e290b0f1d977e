import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from circuits import CircuitError, ShapeError, checks, definitions, trace
from models.language_model import LanguageModel
from models.parts.generation import choose, extend
from tests.peers import peer

SMALL: dict[str, Any] = {"vocabulary": 11, "m": 12, "k": 4, "h": 4, "f": 20, "depth": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "learned": {"learned_positions": 16},
    "untied": {"tied": False, "bias": False},
    "grouped in windows": {"groups": 2, "window": 3},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def small(variant: str = "rotary", **changes: Any) -> LanguageModel:
    """A small model with weights so large that its logits clearly differ between tokens."""
    model = LanguageModel(**SMALL | VARIANTS[variant] | changes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    """Gradients of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), list(model.parameters())))


def by_functions(model: LanguageModel, tokens: Tensor, eps: float = 1e-5) -> Tensor:
    """The logits of one text, computed from the state dict token by token and head by head."""
    state = dict(model.named_parameters())
    k, (h, g) = 4, (4, state["layers.0.attention.Lk.weight"].shape[0] // 4)
    window = 3 if g == 2 else len(tokens)

    def linear(name: str, data: Tensor) -> Tensor:
        return data @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros((), dtype=data.dtype))

    def norm(name: str, data: Tensor) -> Tensor:
        centred = data - data.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * state[f"{name}.weight"] + state.get(f"{name}.bias", torch.zeros((), dtype=data.dtype))

    def rotated(data: Tensor, position: int) -> Tensor:
        if "positions.weight" in state:
            return data
        entries = [*data]
        for i in range(k // 2):
            angle = position * 10000 ** (-2 * i / k)
            one, other = data[i], data[i + k // 2]
            entries[i] = one * math.cos(angle) - other * math.sin(angle)
            entries[i + k // 2] = other * math.cos(angle) + one * math.sin(angle)
        return torch.stack(entries)

    vectors = torch.stack([state["embedding.weight"][token] for token in tokens])
    if "positions.weight" in state:
        vectors = vectors + state["positions.weight"][: len(tokens)]
    for i in range(2):
        normed = norm(f"layers.{i}.attention_norm", vectors)
        query, key, value = (linear(f"layers.{i}.attention.{box}", normed) for box in ("Lq", "Lk", "Lv"))
        rows = []
        for y in range(len(tokens)):
            heads = []
            for head in range(h):
                own, shared = slice(head * k, (head + 1) * k), slice(head * g // h * k, (head * g // h + 1) * k)
                seen = range(max(0, y - window + 1), y + 1)
                scores = [rotated(query[y, own], y) @ rotated(key[x, shared], x) / k**0.5 for x in seen]
                weight = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
                heads.append(sum(weight[j] * value[x, shared] for j, x in enumerate(seen)))
            rows.append(torch.cat(heads))
        vectors = vectors + linear(f"layers.{i}.attention.Lo", torch.stack(rows))
        units = linear(f"layers.{i}.feed_forward.L1", norm(f"layers.{i}.feed_forward_norm", vectors))
        units = units * (1 + torch.erf(units / 2**0.5)) / 2
        vectors = vectors + linear(f"layers.{i}.feed_forward.L2", units)
    return norm("norm", vectors) @ state.get("head.weight", state["embedding.weight"]).T


# --- Against a plain implementation and other libraries ---------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_by_functions(variant: str, dtype: torch.dtype) -> None:
    """Values, and all gradients; in single precision the tolerance is relative to the largest number."""
    model, tokens = small(variant, dtype=dtype), torch.randint(11, (6,))
    ours, expected = model(tokens), by_functions(model, tokens)
    loose: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(ours, expected, **loose)
    torch.testing.assert_close(model.probabilities(tokens), expected.softmax(-1), **loose)
    wanted = gradients(expected, model)
    if loose:
        loose["atol"] = 1e-5 * max(each.abs().max().item() for each in wanted)
    torch.testing.assert_close(gradients(ours, model), wanted, **loose)


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The state dict of another library under the names here; a weight that joins three of this library's is split."""
    found = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        if "Lq,Lk,Lv" not in name:
            found[name] = value
            continue
        for box, part in zip(("Lq", "Lk", "Lv"), value.chunk(3), strict=True):
            found[name.replace("Lq,Lk,Lv", box)] = part
    return found


def generated_by(theirs: Any, tokens: Tensor) -> Tensor:
    """The tokens that Hugging Face's model generates; its attention mask marks no token as padding."""
    every = torch.ones_like(tokens)
    return theirs.generate(tokens, attention_mask=every, max_new_tokens=8, do_sample=False, eos_token_id=None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_learned_positions_it_is_gpt_2(dtype: torch.dtype) -> None:
    """Values, gradients and generated tokens, with the random weights of Hugging Face's model."""
    transformers = peer("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=16, n_embd=12, n_layer=2, n_head=3, n_inner=20, initializer_range=0.3,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).to(dtype).eval()
    sizes: dict[str, Any] = {"vocabulary": 11, "m": 12, "k": 4, "h": 3, "f": 20, "depth": 2}
    ours = LanguageModel(
        **sizes, activation=partial(nn.GELU, approximate="tanh"), learned_positions=16, dtype=dtype
    ).eval()
    names = {
        "transformer.wte": "embedding", "transformer.wpe": "positions", "transformer.h": "layers",
        "transformer.ln_f": "norm", "ln_1": "attention_norm", "ln_2": "feed_forward_norm",
        "attn.c_attn": "attention.Lq,Lk,Lv", "attn.c_proj": "attention.Lo", "mlp.c_fc": "feed_forward.L1",
        "mlp.c_proj": "feed_forward.L2",
    }  # fmt: skip

    def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = {name: value.T if value.ndim == 2 and ".h." in name else value for name, value in state.items()}
        return renamed({name: value for name, value in kept.items() if "lm_head" not in name}, names)

    ours.load_state_dict(converted(theirs.state_dict()))
    tokens = torch.randint(11, (3, 7))
    answer, expected = ours(tokens), theirs(tokens).logits
    torch.testing.assert_close(answer, expected)
    wanted = converted(dict(zip(dict(theirs.named_parameters()), gradients(expected, theirs), strict=True)))
    found = dict(zip(dict(ours.named_parameters()), gradients(answer, ours), strict=True))
    # Sums over 21 tokens are in another order, and norms lose a digit of single precision.
    torch.testing.assert_close(found, {name: wanted[name] for name in found}, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.generate(tokens, 8), generated_by(theirs, tokens))


@pytest.mark.slow
def test_with_rotary_positions_it_is_gpt_neox() -> None:
    transformers = peer("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=11, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        use_parallel_residual=False, initializer_range=0.3, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    )  # fmt: skip
    theirs = transformers.GPTNeoXForCausalLM(config).eval()
    ours = LanguageModel(vocabulary=11, m=12, k=4, h=3, f=20, depth=2, tied=False).eval()
    names = {
        "gpt_neox.embed_in": "embedding", "gpt_neox.layers": "layers", "gpt_neox.final_layer_norm": "norm",
        "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
        "attention.query_key_value": "attention.Lq,Lk,Lv", "attention.dense": "attention.Lo",
        "mlp.dense_h_to_4h": "feed_forward.L1", "mlp.dense_4h_to_h": "feed_forward.L2",
        "embed_out": "head", "lm_head": "head",
    }  # fmt: skip
    state = {}
    for name, value in theirs.state_dict().items():
        if "query_key_value" in name:  # in GPT-NeoX, query, key and value weights of one head are adjacent
            value = value.view(3, 3, 4, *value.shape[1:]).transpose(0, 1).reshape(36, *value.shape[1:])
        state[name] = value
    ours.load_state_dict(renamed(state, names))
    tokens = torch.randint(11, (3, 7))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits)
    assert torch.equal(ours.generate(tokens, 8), generated_by(theirs, tokens))


# --- Parameters -------------------------------------------------------------------------------------------------------


def test_gpt_2_has_as_many_parameters() -> None:
    model = LanguageModel(50257, 768, 64, 12, 3072, 12, learned_positions=1024, device="meta")
    assert count(model) == 124_439_808


@settings(max_examples=20, deadline=None)
@given(
    v=st.integers(1, 9),
    m=st.integers(1, 6),
    k=st.sampled_from([2, 4]),
    h=st.integers(1, 3),
    f=st.integers(1, 9),
    depth=st.integers(1, 3),
    x=st.none() | st.integers(1, 9),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_parameters_are_as_many_as_the_formula_says(
    v: int, m: int, k: int, h: int, f: int, depth: int, x: int | None, tied: bool, bias: bool
) -> None:
    model = LanguageModel(v, m, k, h, f, depth, learned_positions=x, tied=tied, bias=bias, device="meta")
    layer = 4 * m * h * k + 2 * m * f + (3 * h * k + f + 6 * m if bias else 2 * m)
    assert count(model) == v * m + depth * layer + (2 * m if bias else m) + (x or 0) * m + (not tied) * v * m


def test_names_of_the_state_are_a_promise() -> None:
    boxes = [f"attention.L{each}" for each in "qkvo"] + ["attention_norm", "feed_forward.L1", "feed_forward.L2"]
    boxes.append("feed_forward_norm")
    layers = [f"layers.{i}.{box}.{kind}" for i in range(2) for box in boxes for kind in ("weight", "bias")]
    names = ["embedding.weight", "positions.weight", *layers, "norm.weight", "norm.bias", "head.weight"]
    assert list(LanguageModel(**SMALL, learned_positions=16, tied=False).state_dict()) == names
    assert list(LanguageModel(**SMALL).state_dict()) == [names[0], *names[2:-1]]


def test_weights_are_initialized_as_in_gpt_2() -> None:
    """The standard deviation of every weight, each of over 4,000 numbers, within 5 %."""
    model = LanguageModel(64, 64, 16, 4, 128, 8, learned_positions=64, tied=False)
    for name, value in model.named_parameters():
        if value.ndim == 2:
            expected = 0.02 / 4 if "Lo" in name or "L2" in name else 0.02
            torch.testing.assert_close(value.std().item(), expected, rtol=0.05, atol=0)
            assert abs(value.mean().item()) < expected / 10
        else:
            assert value.eq(1 if name.endswith("norm.weight") else 0).all()


# --- Shapes, and what is refused --------------------------------------------------------------------------------------


@pytest.mark.every(3)
@pytest.mark.parametrize("lead", [(), (2,), (2, 19)])
@every_variant
def test_shapes_by_the_signature(variant: str, lead: tuple[int, ...]) -> None:
    model = LanguageModel(29, 14, 4, 4, 11, 3, **VARIANTS[variant], device="meta")
    tokens = torch.empty(*lead, 13, dtype=torch.long, device="meta")
    for method in (model, model.probabilities):
        assert method(tokens).shape == (*lead, 13, 29)


@every_variant
def test_probabilities_add_up_to_one(variant: str) -> None:
    tokens = torch.randint(11, (2, 5))
    torch.testing.assert_close(small(variant).probabilities(tokens).sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": 0}, "vocabulary is 0; it may be 1 or more"),
        ({"depth": 0}, "depth is 0; it may be 1 or more"),
        ({"k": 3}, "k may be 2 or 4, not 3"),
        ({"groups": 3}, "4 heads cannot share 3 groups"),
        ({"learned_positions": 0}, "x is 0; it may be 1 or more"),
    ],
)
def test_models_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        LanguageModel(**SMALL | changes)


def test_tokens_are_whole_numbers() -> None:
    for method in (small(), small().probabilities, partial(small().generate, count=2)):
        with pytest.raises(ShapeError, match="tokens"):
            method(torch.rand(2, 5))


@pytest.mark.parametrize("token", [11, -1])
def test_a_token_outside_the_vocabulary_is_named(token: int) -> None:
    model, tokens = small(), torch.tensor([[1, 2, 3], [4, token, -5]])
    for method in (model, model.probabilities, partial(model.generate, count=2)):
        with pytest.raises(CircuitError, match=rf"LanguageModel: token {token} at \[1, 1\]; the tokens are 0 to 10"):
            method(tokens)
    with pytest.raises(CircuitError, match="a token is not in the vocabulary; the tokens are 0 to 10"):
        torch.vmap(model)(tokens)


def test_tokens_inside_the_vocabulary_cost_no_comparison() -> None:
    """No operation reads the tokens but the embedding."""
    seen: list[str] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(each is tokens for each in args):
                seen.append(getattr(func, "__name__", f"{func}"))
            return func(*args, **(kwargs or {}))

    model, tokens = small(), torch.randint(11, (2, 5))
    with checks(False), Watch():
        model(tokens)
    assert seen == ["embedding"]


def test_learned_positions_end() -> None:
    model = small("learned")
    with pytest.raises(CircuitError, match="17 vectors from position 0 on, 16 learned"):
        model(torch.zeros(17, dtype=torch.long))
    tokens = torch.zeros(2, 10, dtype=torch.long)
    assert model.generate(tokens, 7).shape == (2, 17)  # the last token is not an input
    with pytest.raises(
        CircuitError, match="to generate 8 tokens after 10, the model needs 17 positions; 16 are learned"
    ):
        model.generate(tokens, 8)


@pytest.mark.slow
def test_a_diagram_has_no_more_tokens_than_positions() -> None:
    """A symbolic length exceeds the learned positions; the message names sizes that work, as the user writes them."""
    model = small("learned")
    with pytest.raises(CircuitError, match=r'16 positions .* give it a size up to 16, as in .* sizes=\{"x": 16\}'):
        trace(model)
    assert "16 -> 16 11" in trace(model, sizes={"x": 16}).table(columns="sizes")


# --- Dependencies -----------------------------------------------------------------------------------------------------


@every_variant
def test_no_token_sees_what_comes_after_it(variant: str) -> None:
    """Changing later tokens changes no bit of earlier outputs; an output depends on all earlier tokens in reach."""
    model = small(variant, dtype=torch.float64)
    tokens = torch.randint(11, (1, 8))
    before = model(tokens)
    for place in range(8):
        changed = tokens.clone()
        changed[:, place] = (tokens[:, place] + 1) % 11
        moved = (model(changed) - before).abs().sum(-1)[0]
        assert moved[:place].lt(1e-12).all()
        reach = (
            8 if "window" not in VARIANTS[variant] else place + 2 * 2 + 1
        )  # two layers, each of which reaches two tokens further back
        assert moved[place:reach].gt(1e-9).all()
        assert moved[reach:].lt(1e-12).all()


def test_its_jacobian_by_the_embedded_text_is_triangular() -> None:
    model = small(dtype=torch.float64)
    model.embedding.register_forward_hook(lambda *_: vectors)
    vectors = torch.randn(6, 12, dtype=torch.float64)

    def logits(given: Tensor) -> Tensor:
        nonlocal vectors
        vectors = given
        return model(torch.zeros(6, dtype=torch.long))

    jacobian = torch.autograd.functional.jacobian(logits, vectors).abs().sum((1, 3))
    assert jacobian.triu(1).eq(0).all()
    assert jacobian[torch.ones(6, 6).tril().bool()].gt(0).all()


def test_with_rotary_positions_only_distances_count() -> None:
    """With a window, outputs that do not depend on the first tokens are those of the text without these tokens."""
    model = small("grouped in windows", depth=1, dtype=torch.float64)
    tokens = torch.randint(11, (2, 9))
    torch.testing.assert_close(model(tokens)[:, 4:], model(tokens[:, 2:])[:, 2:])


# --- Generation -------------------------------------------------------------------------------------------------------


def greedily(model: LanguageModel, tokens: Tensor, count: int) -> Tensor:
    """Append the most likely token repeatedly, each time computed from the whole text."""
    for _ in range(count):
        tokens = torch.cat([tokens, model(tokens)[..., -1, :].argmax(-1, keepdim=True)], -1)
    return tokens


@every_variant
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_generating_with_a_cache_is_generating_without(variant: str, lead: tuple[int, ...]) -> None:
    model, tokens = small(variant, dtype=torch.float64), torch.randint(11, (*lead, 4))
    grown = model.generate(tokens, 9)
    assert torch.equal(grown, greedily(model, tokens, 9))
    assert grown.unique().numel() > 2  # a model that repeats one token would test nothing


@every_variant
def test_reading_in_pieces_is_reading_at_once(variant: str) -> None:
    """Compares the hidden states, which may differ even if the most likely tokens are equal."""
    model, tokens = small(variant, dtype=torch.float64), torch.randint(11, (2, 9))
    layers: Any = model.layers
    with torch.no_grad():
        caches = [layer.attention.cache(9, (2,)) for layer in layers]
        parts = [model._hidden_states(piece, caches) for piece in tokens.split([4, 1, 3, 1], -1)]
        torch.testing.assert_close(torch.cat(parts, 1), model._hidden_states(tokens))


def test_no_position_is_read_twice() -> None:
    model, seen = small(), []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model.generate(torch.randint(11, (2, 5)), 4)
    assert seen == [5, 1, 1, 1]


def test_generating_no_tokens_returns_the_prompt() -> None:
    tokens = torch.randint(11, (2, 5))
    assert torch.equal(small().generate(tokens, 0), tokens)


@pytest.mark.parametrize("training", [False, True])
def test_generating_changes_nothing_of_the_model(training: bool) -> None:
    model = small(dropout=0.5).train(training)
    before = copy.deepcopy(model.state_dict())
    answers = [model.generate(torch.zeros(2, 1, dtype=torch.long), 14) for _ in range(2)]
    assert torch.equal(*answers) is not training  # dropout applies if the model is in training mode
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model(answers[0]).sum().backward()  # generated tokens can be inputs in training


def test_a_generator_makes_sampling_reproducible() -> None:
    model, tokens = small(), torch.randint(11, (4, 3))
    state = torch.get_rng_state()
    drawn = [
        model.generate(tokens, 12, temperature=2.0, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(model.generate(tokens, 12, temperature=2.0), drawn[0])


def test_top_1_or_almost_no_temperature_is_greedy() -> None:
    model, tokens = small(), torch.randint(11, (4, 3))
    expected = model.generate(tokens, 10)
    assert torch.equal(model.generate(tokens, 10, temperature=5.0, top_k=1), expected)
    assert torch.equal(model.generate(tokens, 10, temperature=1e-30), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 3])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature: float, top_k: int | None) -> None:
    """Over 40,000 draws the standard error of a frequency is at most 0.0025; the tolerance is five standard errors."""
    logits = torch.tensor([0.3, -1.0, 1.2, 0.9, 0.0])
    drawn = choose(logits.expand(40_000, 5), temperature=temperature, top_k=top_k)
    shares = drawn.bincount(minlength=5) / 40_000
    powers = [math.exp(each / temperature) for each in logits.tolist()]
    if top_k == 3:
        powers[1] = powers[4] = 0.0
    expected = torch.tensor([each / sum(powers) for each in powers])
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.0125)
    assert shares[expected == 0].eq(0).all()


def test_generate_draws_from_the_models_probabilities() -> None:
    """One token after each of 20,000 copies of a text; the standard error of a frequency is at most 0.0036."""
    model, text = small().eval(), torch.randint(11, (4,))
    drawn = model.generate(text.expand(20_000, 4), 1, temperature=1.0)[:, -1]
    torch.testing.assert_close(
        drawn.bincount(minlength=11) / 20_000, model.probabilities(text)[-1].detach(), rtol=0, atol=0.018
    )


def test_all_tokens_at_any_dtype() -> None:
    logits = torch.randn(2, 3, 7)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(choose(logits.to(dtype), temperature=1e-9), logits.to(dtype).argmax(-1))


def test_a_sequence_ends_at_the_stop() -> None:
    """Up to its first stop token a sequence is as without it, then padding; generation ends when all have stopped."""
    model, tokens = small(), torch.randint(11, (6, 2))
    free = model.generate(tokens, 14)
    stop = int(free[0, 5])
    grown = model.generate(tokens, 14, stop=stop)
    longest = 0
    for ours, theirs in zip(grown[:, 2:].tolist(), free[:, 2:].tolist(), strict=True):
        end = theirs.index(stop) + 1 if stop in theirs else len(theirs)
        longest = max(longest, end)
        assert ours == (theirs[:end] + [stop] * 14)[: len(ours)]
    assert grown.shape[1] == 2 + longest
    alone = model.generate(tokens[:1], 14, stop=stop)
    assert alone.shape[1] <= 6
    assert alone[0, -1] == stop


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": -1}, "count is -1; it may be 0 or more"),
        ({"temperature": 0.0}, "0.0; it may be any finite number above 0, or None for the most likely token"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 3}, "top_k=3 limits sampling, and nothing is sampled without a temperature"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0; it may be 1 to 11"),
        ({"temperature": 1.0, "top_k": 12}, "top_k is 12; it may be 1 to 11"),
        ({"stop": 11}, "stop is 11; the tokens are 0 to 10"),
        ({"stop": -1}, "stop is -1"),
        ({"tokens": torch.zeros(2, 0, dtype=torch.long)}, "the prompt is empty"),
    ],
)
@pytest.mark.parametrize("count", [0, 3])
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str, count: int) -> None:
    """Also if `count` is 0."""
    with pytest.raises(CircuitError, match=said):
        small().generate(**{"tokens": torch.zeros(2, 1, dtype=torch.long), "count": count} | settings)


def test_a_stopped_sequence_is_padded_with_the_stop_token() -> None:
    """`step` predicts the successor of the last token, so a sequence would continue after `stop` if not padded."""
    begun = torch.tensor([[1], [3], [0]])
    grown = extend(begun, 9, lambda tokens, _: torch.eye(9)[(tokens[..., -1] + 1) % 9], stop=4)
    assert grown.tolist() == [[1, 2, 3, 4, 4], [3, 4, 4, 4, 4], [0, 1, 2, 3, 4]]


def test_extend_passes_only_new_tokens_to_step() -> None:
    given = []

    def step(tokens: Tensor, _: Tensor | None) -> Tensor:
        given.append(tokens.tolist())
        return torch.eye(5)[(tokens[..., -1] + 2) % 5]

    assert extend(torch.tensor([1, 2]), 3, step).tolist() == [1, 2, 4, 1, 3]
    assert given == [[1, 2], [4], [1]]


# --- In training code -------------------------------------------------------------------------------------------------


@every_variant
def test_a_step_of_training_lowers_the_loss(variant: str) -> None:
    model = LanguageModel(**SMALL, **VARIANTS[variant], dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    tokens, losses = torch.randint(11, (4, 9)), []
    for _ in range(4):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(math.log(11), abs=0.1)  # at first all tokens are equally likely


def test_dropout_is_for_training_alone() -> None:
    model, tokens = small(dropout=0.5), torch.randint(11, (2, 5))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    zeros: list[float] = []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: zeros.append(inputs[0].eq(0).float().mean().item()))
    model.train()(torch.randint(11, (20, 50)))
    assert zeros[0] == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
@every_variant
def test_it_compiles_into_one_graph(variant: str) -> None:
    """Forward and reverse pass."""
    torch.compiler.reset()
    model, tokens = small(variant, dtype=torch.float64), torch.randint(11, (2, 5))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, answer = model(tokens), compiled(tokens)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, model), gradients(expected, model))


@pytest.mark.slow
@pytest.mark.every(1, 2)
@pytest.mark.parametrize("dynamic", [True, False])
def test_it_compiles_to_code_in_one_graph(dynamic: bool) -> None:
    torch.compiler.reset()
    model = small()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for b, x in ((2, 5), (3, 4)):
        tokens = torch.randint(11, (b, x))
        expected, answer = model(tokens), compiled(tokens)
        # Sums are in another order, and norms amplify the differences; gradients pass every norm a second time.
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradients(answer, model), gradients(expected, model), rtol=1e-3, atol=1e-5)


@every_variant
def test_it_generates_under_autocast(variant: str) -> None:
    """The caches hold keys and values in the dtype of autocast."""
    model, tokens = LanguageModel(**SMALL, **VARIANTS[variant]), torch.randint(11, (2, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.generate(tokens, 6).shape == (2, 11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_generates_in_its_own_dtype(dtype: torch.dtype) -> None:
    assert small(dtype=dtype).generate(torch.randint(11, (2, 5)), 6).shape == (2, 11)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
@every_variant
def test_it_maps_over_texts_and_models(variant: str) -> None:
    model, other, tokens = small(variant).double(), small(variant).double(), torch.randint(11, (3, 5))
    torch.testing.assert_close(torch.vmap(model)(tokens), model(tokens))
    stacked = {name: torch.stack([value, other.state_dict()[name]]) for name, value in model.state_dict().items()}
    both = torch.vmap(lambda state: torch.func.functional_call(model, state, (tokens,)))(stacked)
    torch.testing.assert_close(both, torch.stack([model(tokens), other(tokens)]))


@pytest.mark.slow
def test_second_derivatives_are_right() -> None:
    """With respect to the parameters, of the definitions, against finite differences of first derivatives."""
    model = LanguageModel(5, 4, 2, 2, 3, 1, learned_positions=3, dtype=torch.float64)
    tokens = torch.tensor([[3, 0, 4]])
    names = ["layers.0.attention.Lq.weight", "embedding.weight", "positions.weight"]

    def logits(*weights: Tensor) -> Tensor:
        with definitions():
            state = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(model, state, tokens)

    weights = [torch.randn_like(model.get_parameter(name)).requires_grad_() for name in names]
    assert torch.autograd.gradgradcheck(logits, weights)


@pytest.mark.slow
def test_it_exports_with_any_length() -> None:
    model, free = small(), torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (torch.randint(11, (2, 5)),), dynamic_shapes={"tokens": {0: free, 1: free}})
    tokens = torch.randint(11, (3, 8))
    torch.testing.assert_close(program.module()(tokens), model(tokens))


# --- Its table --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_shows_the_model() -> None:
    model = LanguageModel(50257, 768, 64, 12, 3072, 3, learned_positions=1024, device="meta").eval()
    table = trace(model.probabilities).table(depth=None, width=300)
    lines = table.partition("\n\n")[0].splitlines()
    assert "x -> x 50257" in lines[1]
    assert f" {124_439_808 - 9 * 7_087_872:,}" in lines[1]
    assert "×3" in table
    assert "softmax over v" in lines[-1]
