import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, trace
from models.sequence_to_sequence import SequenceToSequence

SMALL: dict[str, Any] = {
    "vocabulary": 11, "m": 12, "k": 3, "h": 4, "f": 20, "encoder_depth": 2, "decoder_depth": 2, "dropout": 0.0,
}  # fmt: skip


def small(**changes: Any) -> SequenceToSequence:
    """A small model with weights so large that its logits clearly differ between tokens."""
    model = SequenceToSequence(**SMALL | changes)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.4 + ("norm" in name))
    return model


def tokens(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randint(1, 11, shape) for shape in shapes]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    """Gradients of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), list(model.parameters())))


def by_torch(model: SequenceToSequence, source: Tensor, target: Tensor) -> Tensor:
    """The logits computed by torch's own transformer; the embedding, the positions and the head are computed here."""
    theirs = nn.Transformer(12, 4, 2, 2, 20, 0.0, batch_first=True, dtype=model.embedding.weight.dtype)
    state: dict[str, Tensor] = {}
    for name, value in model.transformer.named_parameters():
        place, _, rest = name.partition(".")
        order = ("attention_norm", "memory_attention_norm", "feed_forward_norm")
        order = order if place == "decoder" else (order[0], order[2])
        for i, norm in enumerate(order):
            rest = rest.replace(f".{norm}.", f".norm{i + 1}.")
        for ours, torchs in (
            (".memory_attention.", ".multihead_attn."), (".attention.", ".self_attn."), (".Lo.", ".out_proj."),
            ("feed_forward.L1", "linear1"), ("feed_forward.L2", "linear2"),
        ):  # fmt: skip
            rest = rest.replace(ours, torchs)
        for i, box in enumerate(("Lq", "Lk", "Lv")):
            if f".{box}." in rest:
                packed = f"{place}.{rest.replace(f'{box}.', 'in_proj_')}"
                state[packed] = torch.cat([state[packed], value]) if i else value
                break
        else:
            state[f"{place}.{rest}"] = value
    assert state.keys() == theirs.state_dict().keys()

    def embed(tokens: Tensor) -> Tensor:
        waves = torch.zeros(tokens.shape[-1], 12, dtype=model.embedding.weight.dtype)
        for p in range(tokens.shape[-1]):
            for i in range(0, 12, 2):
                waves[p, i], waves[p, i + 1] = math.sin(p / 10000 ** (i / 12)), math.cos(p / 10000 ** (i / 12))
        return model.embedding.weight[tokens] * math.sqrt(12) + waves

    padded = source == 0 if model.padding == 0 else None
    mask = nn.Transformer.generate_square_subsequent_mask(target.shape[-1], dtype=model.embedding.weight.dtype)
    floating = None if padded is None else torch.zeros(padded.shape, dtype=mask.dtype).masked_fill(padded, -torch.inf)
    options = {"tgt_mask": mask, "src_key_padding_mask": floating, "memory_key_padding_mask": floating}
    found = torch.func.functional_call(theirs, state, (embed(source), embed(target)), options)
    return found @ (model.embedding if model.head is None else model.head).weight.T


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"padding": 0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_torchs_transformer_between_an_embedding_and_a_head(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """Values and gradients; in single precision the tolerance is relative to the largest number."""
    model, (source, target) = small(**changes, dtype=dtype), tokens((3, 7), (3, 5))
    source[1, 4:] = source[2, 2:] = 0
    ours, expected = model(source, target), by_torch(model, source, target)
    loose: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(ours, expected, **loose)
    torch.testing.assert_close(model.probabilities(source, target), expected.softmax(-1), **loose)
    wanted = gradients(expected, model)
    if loose:
        loose["atol"] = 1e-5 * max(each.abs().max().item() for each in wanted)
    torch.testing.assert_close(gradients(ours, model), wanted, **loose)


# --- Parameters, names, initialization --------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(v=st.integers(1, 9), m=st.integers(1, 6), depth=st.integers(1, 2), tied=st.booleans(), bias=st.booleans())
def test_parameters_are_as_many_as_the_formula_says(v: int, m: int, depth: int, tied: bool, bias: bool) -> None:
    model = SequenceToSequence(v, m, 2, 3, 5, depth, 1, tied=tied, bias=bias, device="meta")
    assert count(model) == (1 + (not tied)) * v * m + count(model.transformer)


def test_the_papers_base_model() -> None:
    """With the 37,000 tokens of section 5.1 it has 63 million parameters; Table 3 of the paper says 65 million."""
    model = SequenceToSequence(37_000, final_norm=False, device="meta")
    assert count(model) == 37_000 * 512 + 44_140_544 - 4 * 512 == 63_082_496


def test_names_of_the_state_are_a_promise() -> None:
    model = small(tied=False)
    inside = [f"transformer.{name}" for name in model.transformer.state_dict()]
    assert list(model.state_dict()) == ["embedding.weight", *inside, "head.weight"]
    assert list(small().state_dict()) == ["embedding.weight", *inside]


def test_weights_are_initialized_as_the_docstring_says() -> None:
    """Embedded tokens, multiplied by √m, have variance 1."""
    model = SequenceToSequence(400, 64, 16, 4, 128, 1, 1, tied=False)
    torch.testing.assert_close(model.embedding.weight.std().item(), 64**-0.5, rtol=0.02, atol=0)
    torch.testing.assert_close(
        model.get_parameter("head.weight").abs().max().item(), (6 / 464) ** 0.5, rtol=0.01, atol=0
    )
    box = model.get_parameter("transformer.decoder.layers.0.feed_forward.L1.weight")
    torch.testing.assert_close(box.abs().max().item(), (6 / 192) ** 0.5, rtol=0.01, atol=0)


# --- Shapes, and what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (2,), (2, 19)])
def test_shapes_by_the_signature(lead: tuple[int, ...]) -> None:
    model = SequenceToSequence(29, 14, 5, 3, 11, 1, 1, padding=0, device="meta")
    source, target = (torch.empty(*lead, size, dtype=torch.long, device="meta") for size in (13, 17))
    for method in (model, model.probabilities):
        assert method(source, target).shape == (*lead, 17, 29)


@pytest.mark.parametrize("token", [11, -1])
def test_a_token_outside_the_vocabulary_is_named(token: int) -> None:
    model, (given,) = small(), tokens((2, 4))
    wrong = given.clone()
    wrong[1, 2] = token
    for inputs in ((wrong, given), (given, wrong)):
        with pytest.raises(
            CircuitError, match=rf"SequenceToSequence: token {token} at \[1, 2\]; the tokens are 0 to 10"
        ):
            model(*inputs)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(CircuitError, match="vocabulary is 0"):
        SequenceToSequence(0)
    with pytest.raises(CircuitError, match="padding is 11; the tokens are 0 to 10"):
        small(padding=11)
    with pytest.raises(CircuitError, match="depth is 0"):
        small(decoder_depth=0)
    with pytest.raises(ShapeError, match="target"):
        small()(*tokens((2, 7)), torch.rand(2, 5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": -1}, "count is -1"),
        ({"stop": 11}, "stop is 11; the tokens are 0 to 10"),
        ({"top_k": 2}, "nothing is sampled without a temperature"),
        ({"temperature": 0}, "temperature is 0"),
        ({"target": torch.zeros(2, 0, dtype=torch.long)}, "the prompt is empty"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"target": torch.zeros(2, 1, dtype=torch.long), "count": 3} | options
    with pytest.raises(CircuitError, match=said):
        small().generate(torch.ones(2, 4, dtype=torch.long), **given)


# --- Dependencies -----------------------------------------------------------------------------------------------------


def test_no_token_sees_what_comes_after_it_and_each_sees_the_whole_source() -> None:
    model, (source, target) = small(dtype=torch.float64), tokens((1, 7), (1, 6))
    before = model(source, target)
    for place in range(6):
        changed = target.clone()
        changed[:, place] = target[:, place] % 10 + 1
        moved = (model(source, changed) - before).abs().sum(-1)[0]
        assert moved[:place].lt(1e-12).all()
        assert moved[place:].gt(1e-9).all()
    for place in range(7):
        changed = source.clone()
        changed[:, place] = source[:, place] % 10 + 1
        assert (model(changed, target) - before).abs().sum(-1).gt(1e-9).all()


def test_padding_changes_nothing() -> None:
    """Outputs do not depend on the amount of padding, and are finite if a whole source is padding."""
    model, (source, target) = small(padding=0, dtype=torch.float64), tokens((3, 5), (3, 6))
    padded = F.pad(source, (0, 4))
    torch.testing.assert_close(model(padded, target), model(source, target))
    assert model(torch.zeros_like(source), target).isfinite().all()
    plain = small(dtype=torch.float64)
    assert not torch.allclose(plain(padded, target), plain(source, target))


# --- Generation -------------------------------------------------------------------------------------------------------


@pytest.mark.every(3)
@pytest.mark.parametrize("changes", [{}, {"norm_first": True, "tied": False}, {"padding": 0}])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_generating_with_caches_is_generating_without(changes: dict[str, Any], lead: tuple[int, ...]) -> None:
    model, (source, target) = small(**changes, dtype=torch.float64), tokens((*lead, 7), (*lead, 2))
    source[..., 5:] = 0
    expected = target
    for _ in range(9):
        best = model(source, expected)[..., -1, :].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], -1)
    assert torch.equal(model.generate(source, target, 9), expected)


def test_the_source_is_encoded_once_and_no_position_read_twice() -> None:
    model, (source, target) = small(), tokens((2, 7), (2, 3))
    encoded, remembered, read = [], [], []
    model.transformer.encoder.register_forward_hook(lambda *_: encoded.append(1))
    layer: Any = model.transformer.decoder.layers[1]
    layer.memory_attention.Lk.register_forward_hook(lambda *_: remembered.append(1))
    layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1]))
    model.generate(source, target, 4)
    assert (len(encoded), len(remembered), read) == (1, 1, [3, 1, 1, 1])


def test_draws_and_stops_are_as_in_a_language_model() -> None:
    model, (source, target) = small(), tokens((4, 7), (4, 1))
    greedy = model.generate(source, target, 8)
    assert torch.equal(model.generate(source, target, 8, temperature=3.0, top_k=1), greedy)
    drawn = [
        model.generate(source, target, 8, temperature=3.0, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], greedy)
    stop = int(greedy[0, 3])
    alone = model.generate(source[:1], target[:1], 8, stop=stop)
    assert alone[0, -1] == stop
    assert alone.shape[1] <= 4
    assert torch.equal(model.generate(source, target, 0), target)


# --- In training code -------------------------------------------------------------------------------------------------


def test_a_step_of_training_lowers_the_loss() -> None:
    model, (source, target) = SequenceToSequence(**SMALL), tokens((8, 7), (8, 6))
    optimizer, losses = torch.optim.AdamW(model.parameters(), 0.003), []
    for _ in range(4):
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_dropout_is_for_training_alone() -> None:
    model, given = small(dropout=0.5), tokens((2, 7), (2, 5))
    assert not torch.equal(model(*given), model(*given))
    model.eval()
    assert torch.equal(model(*given), model(*given))
    assert not any(module.training for module in model.modules())
    model.generate(*given, count=3)
    assert not any(module.training for module in model.modules())


@pytest.mark.slow
def test_it_compiles_into_one_graph() -> None:
    """Forward and reverse pass."""
    torch.compiler.reset()
    model, given = small(padding=0, dtype=torch.float64), tokens((2, 7), (2, 5))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, answer = model(*given), compiled(*given)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, model), gradients(expected, model))


def test_it_generates_under_autocast() -> None:
    """The caches hold keys and values in the dtype of autocast."""
    model, given = SequenceToSequence(**SMALL, padding=0), tokens((2, 7), (2, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.generate(*given, count=3).shape == (2, 8)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
def test_it_maps_over_pairs() -> None:
    model, given = small(padding=0, dtype=torch.float64), tokens((2, 7), (2, 5))
    torch.testing.assert_close(torch.vmap(model)(*given), model(*given))


@pytest.mark.slow
def test_the_table_keeps_its_lengths_free() -> None:
    table = str(trace(small(padding=0).eval()))
    assert "x, y -> y 11" in table.splitlines()[1]
    assert "fixed by" not in table
