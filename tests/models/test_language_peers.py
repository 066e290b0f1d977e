"""LanguageModel.from_huggingface: GPT-2, GPT-NeoX, Llama, Mistral and Qwen2, with random weights of every size."""

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
from circuits import CircuitError
from models.gated_feed_forward import GatedFeedForward
from models.language_model import LanguageModel
from models.parts.positions import RotaryPositions, ScaledRotaryPositions
from tests.peers import peer

GPT_2: dict[str, Any] = {"vocab_size": 11, "n_positions": 40, "n_embd": 12, "n_layer": 2, "n_head": 3}
SIZES: dict[str, Any] = {"vocab_size": 11, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {**SIZES, "num_attention_heads": 6, "num_key_value_heads": 2}
SCALED = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
}  # fmt: skip
WHOLE = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}

PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2", GPT_2),
    "GPT-2, ReLU, wide": ("GPT2", {**GPT_2, "activation_function": "relu", "n_inner": 7, "layer_norm_epsilon": 1e-3}),
    "GPT-NeoX": ("GPTNeoX", {**SIZES, "hidden_size": 24, "num_attention_heads": 3}),
    "GPT-NeoX, in series": (
        "GPTNeoX",
        {**SIZES, "num_attention_heads": 3, "use_parallel_residual": False, "rope_parameters": WHOLE},
    ),
    "Llama": ("Llama", HEADS),
    "Llama 3.1": ("Llama", {**HEADS, "head_dim": 8, "rope_parameters": SCALED, "rms_norm_eps": 1e-3}),
    "Llama 3.2, tied": ("Llama", {**HEADS, "tie_word_embeddings": True, "rope_parameters": {**WHOLE}}),
    "Llama with biases": ("Llama", {**HEADS, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "Mistral": ("Mistral", {**HEADS, "sliding_window": 3}),
    "Mistral without a window": ("Mistral", {**HEADS, "sliding_window": None, "head_dim": 4}),
    "Qwen2": ("Qwen2", {**HEADS, "rope_parameters": {**WHOLE}}),
    "Qwen2, tied": ("Qwen2", {**HEADS, "tie_word_embeddings": True}),
    "Qwen2 in windows": (
        "Qwen2",
        {**HEADS, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    ),
}
"""A class of transformers without its ending, and the settings of its configuration."""

every_peer = pytest.mark.parametrize("case", PEERS)


def theirs(case: str, ending: str = "", **changes: Any) -> Any:
    """Hugging Face's model with random numbers in every weight: also norms and biases."""
    transformers = peer("transformers")
    name, settings = PEERS[case]
    settings = {**settings, "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager", **changes}
    settings |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if name == "GPT2" else {}
    settings = copy.deepcopy(settings)  # transformers completes the rules of rotary positions in place
    ending = ending or ("LMHeadModel" if name == "GPT2" else "ForCausalLM")
    model = getattr(transformers, f"{name}{ending}")(getattr(transformers, f"{name}Config")(**settings)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    return model(tokens)


def gradients(output: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Gradients, by name, of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad((output * weights).sum(), parameters), strict=True))


# --- Equal numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.every(4)
@every_peer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_gradients_are_theirs(case: str, dtype: torch.dtype) -> None:
    """Rotary angles of transformers are in single precision always, so that those models agree no better in double."""
    other, tokens = theirs(case).to(dtype), torch.randint(11, (3, 37))
    ours = LanguageModel.from_huggingface(other)
    assert ours.embedding.weight.dtype == dtype
    assert sum(each.numel() for each in ours.parameters()) == sum(each.numel() for each in other.parameters())
    found, expected = logits(ours, tokens), other(tokens).logits
    loose: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float64 and "GPT-2" not in case else {}
    torch.testing.assert_close(found, expected, **loose)
    wanted = LanguageModel.from_huggingface(gradients(expected, other), config=other.config)
    # Sums over 111 tokens are in another order, and norms lose a digit of single precision.
    for name, gradient in gradients(found, ours).items():
        expected = wanted.get_parameter(name).detach()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=2e-5 * expected.abs().max().item() + 1e-6)


@pytest.mark.every(3)
@every_peer
def test_generated_tokens_are_theirs(case: str) -> None:
    other, tokens = theirs(case), torch.randint(11, (3, 5))
    ours = LanguageModel.from_huggingface(other)
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    expected = other.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    assert torch.equal(ours.generate(tokens, 20), expected)
    assert expected.unique().numel() > 2  # a model that repeats one token would test nothing


@every_peer
def test_reading_in_pieces_with_caches_is_reading_at_once(case: str) -> None:
    other = theirs(case)
    ours, tokens = LanguageModel.from_huggingface(other), torch.randint(11, (2, 30))
    with torch.no_grad():
        layers: Any = ours.layers
        caches = [layer.attention.cache(30, (2,)) for layer in layers]
        parts = [ours._head_logits(ours._hidden_states(piece, caches)) for piece in tokens.split([11, 1, 1, 17], -1)]
        torch.testing.assert_close(torch.cat(parts, 1), other(tokens).logits)


def test_the_frequencies_of_llama_3_are_theirs() -> None:
    """Also those between the two limits: with this base the wavelengths go from 6 to 400,000 positions."""
    utilities = peer("transformers.modeling_rope_utils")
    rules = {**SCALED, "rope_theta": 80_000.0, "original_max_position_embeddings": 2048}
    config = theirs("Llama 3.1", head_dim=64, rope_parameters=rules).config
    expected, _ = utilities.ROPE_INIT_FUNCTIONS["llama3"](config)
    rotary = ScaledRotaryPositions(64, 80_000.0, length=2048)
    found = rotary.frequencies(torch.empty(1))
    torch.testing.assert_close(found, expected)
    plain = RotaryPositions(64, 80_000.0).frequencies(torch.empty(1))
    shares = found / plain
    assert shares[0] == 1
    assert shares[-1] == pytest.approx(1 / 8)
    assert ((shares > 0.13) & (shares < 0.99)).sum() >= 3


def test_a_part_of_the_entries_is_rotated() -> None:
    vectors = torch.randn(2, 5, 8, dtype=torch.float64)
    found = RotaryPositions(8, 100.0, rotated=4)(vectors, start=3)
    expected = torch.cat((RotaryPositions(4, 100.0)(vectors[..., :4], start=3), vectors[..., 4:]), -1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RotaryPositions(8, rotated=3), "rotated may be 2 or 4, not 3"),
        (lambda: RotaryPositions(8, rotated=10), "rotated is 10; it may be up to k, which is 8"),
        (lambda: RotaryPositions(8, 0.0), "base is 0.0; it may be any number above 0"),
        (lambda: ScaledRotaryPositions(8, factor=0.0), "ScaledRotaryPositions: factor is 0.0"),
        (lambda: ScaledRotaryPositions(8, low=2.0, high=2.0), "high is 2.0; it may be any number above low"),
        (lambda: ScaledRotaryPositions(7), "ScaledRotaryPositions: entries are rotated in pairs"),
    ],
)
def test_positions_that_cannot_be_are_refused(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        make()


# --- The parts --------------------------------------------------------------------------------------------------------


def test_a_gated_network_by_hand() -> None:
    network, vectors = GatedFeedForward(4, 5, bias=True).double(), torch.randn(3, 4, dtype=torch.float64)
    gate = vectors @ network.L1.weight.T + network.L1.bias
    units = gate / (1 + torch.exp(-gate)) * (vectors @ network.L3.weight.T + network.L3.bias)
    torch.testing.assert_close(network(vectors), units @ network.L2.weight.T + network.L2.bias)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"norm": nn.BatchNorm1d}, "it may be nn.LayerNorm or nn.RMSNorm"),
        ({"rotary": RotaryPositions(4), "learned_positions": 9}, "give learned_positions or rotary"),
        ({"rotary": RotaryPositions(8)}, "heads are 4 wide, rotary is for vectors 8 wide"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        LanguageModel(11, 12, 4, 3, 20, 2, **options)


def test_parallel_layers_are_pre_norm_encoder_layers() -> None:
    from models.transformer import DecoderLayer, EncoderLayer

    for make in (lambda: EncoderLayer(8, 4, 2, 8, parallel=True), lambda: DecoderLayer(8, 4, 2, 8, parallel=True)):
        with pytest.raises(CircuitError, match="parallel=True is for an EncoderLayer with norm_first=True"):
            make()


@pytest.mark.every(2)
@every_peer
def test_it_can_be_saved_and_loaded(case: str, tmp_path: Path) -> None:
    ours, tokens = LanguageModel.from_huggingface(theirs(case)), torch.randint(11, (2, 9))
    models.save(ours, tmp_path / "model.safetensors")
    again = models.load(tmp_path / "model.safetensors")
    assert isinstance(again, LanguageModel)
    assert repr(again) == repr(ours)
    assert torch.equal(logits(again, tokens), logits(ours, tokens))


# --- Where weights come from ------------------------------------------------------------------------------------------


@pytest.mark.every(8)
@every_peer
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_is_read(case: str, shards: bool, tmp_path: Path) -> None:
    """A folder, the file or the index in it, and the state dict with a configuration, all have the same weights."""
    other = theirs(case)
    other.save_pretrained(tmp_path, max_shard_size="3kB" if shards else "1GB")
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() is shards
    config = json.loads((tmp_path / "config.json").read_text())
    expected = LanguageModel.from_huggingface(other)
    path = index if shards else tmp_path / "model.safetensors"
    for given in (
        LanguageModel.from_huggingface(tmp_path),
        LanguageModel.from_huggingface(f"{path}"),
        LanguageModel.from_huggingface(other.state_dict(), config=config),
        LanguageModel.from_huggingface(other.state_dict(), config=other.config),
    ):
        assert repr(given) == repr(expected)
        torch.testing.assert_close(dict(given.state_dict()), dict(expected.state_dict()), rtol=0, atol=0)


def test_mode_dtype_and_options() -> None:
    other = theirs("Llama")
    assert not LanguageModel.from_huggingface(other).training
    assert LanguageModel.from_huggingface(other.train()).training
    ours = LanguageModel.from_huggingface(other.bfloat16(), dropout=0.25)
    assert ours.embedding.weight.dtype == torch.bfloat16
    assert ours.dropout == 0.25
    assert LanguageModel.from_huggingface(other, dtype=torch.float64).norm.weight.dtype == torch.float64


@pytest.mark.parametrize(("case", "kind"), [("GPT-2", "GPT2Model"), ("Llama 3.2, tied", "LlamaModel")])
def test_a_model_without_a_head_has_that_of_its_embedding(case: str, kind: str) -> None:
    other, tokens = theirs(case, "Model"), torch.randint(11, (2, 9))
    assert type(other).__name__ == kind
    expected = other(tokens).last_hidden_state @ other.get_input_embeddings().weight.T
    torch.testing.assert_close(logits(LanguageModel.from_huggingface(other), tokens), expected)


def test_names_and_settings_of_earlier_versions() -> None:
    """Stored masks and frequencies are left out; `rope_theta` and `rotary_pct` stand in the configuration itself."""
    other, tokens = theirs("GPT-NeoX"), torch.randint(11, (2, 9))
    state = {name.replace("lm_head", "embed_out"): value for name, value in other.state_dict().items()}
    state["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    state["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    state["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(1)
    config = {**SIZES, "hidden_size": 24, "num_attention_heads": 3, "model_type": "gpt_neox", "hidden_act": "gelu"}
    config |= {"rotary_pct": 0.25, "rotary_emb_base": 10000}
    ours = LanguageModel.from_huggingface(state, config=config)
    torch.testing.assert_close(logits(ours, tokens), other(tokens).logits)
    other = theirs("Llama 3.1")
    rules = {name: value for name, value in SCALED.items() if name != "rope_theta"}
    config = {**HEADS, "head_dim": 8, "model_type": "llama", "rms_norm_eps": 1e-3}
    ours = LanguageModel.from_huggingface(
        other.state_dict(), config={**config, "rope_theta": 100.0, "rope_scaling": rules}
    )
    torch.testing.assert_close(logits(ours, tokens), other(tokens).logits)
    other = theirs("GPT-2")
    state = {name.removeprefix("transformer."): value for name, value in other.state_dict().items()}
    del state["lm_head.weight"]
    state["h.0.attn.bias"], state["h.1.attn.masked_bias"] = torch.ones(1, 1, 40, 40), torch.tensor(-1e4)
    ours = LanguageModel.from_huggingface(state, config={**GPT_2, "model_type": "gpt2"})
    torch.testing.assert_close(logits(ours, tokens), other(tokens).logits)


def test_a_prefix_is_told_and_stripped() -> None:
    other = theirs("Qwen2")
    wrapped = {f"_orig_mod.module.{name}": value for name, value in other.state_dict().items()}
    with pytest.raises(
        models.WeightsError, match=r'begins with "_orig_mod.module."; prefix="_orig_mod.module." strips'
    ):
        LanguageModel.from_huggingface(wrapped, config=other.config)
    ours = LanguageModel.from_huggingface(wrapped, config=other.config, prefix="_orig_mod.module.")
    inside = LanguageModel.from_huggingface(nn.DataParallel(other), prefix="module.")
    expected = dict(LanguageModel.from_huggingface(other).state_dict())
    for each in (ours, inside):
        torch.testing.assert_close(dict(each.state_dict()), expected, rtol=0, atol=0)
    with pytest.raises(models.WeightsError, match=r'do not begin with "module."'):
        LanguageModel.from_huggingface(wrapped, config=other.config, prefix="module.")
    with pytest.raises(CircuitError, match=r'has no submodule at prefix="module."'):
        LanguageModel.from_huggingface(other, prefix="module.")


# --- What is refused --------------------------------------------------------------------------------------------------


def changed(state: Mapping[str, Tensor], **changes: Tensor) -> dict[str, Tensor]:
    """A state dict with tensors replaced, added, or removed if they are empty."""
    return {name: value for name, value in {**state, **changes}.items() if value.numel()}


GONE = torch.empty(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model.layers.0.self_attn.q_norm.weight": torch.ones(2)},
            "LanguageModel.from_huggingface cannot take these weights:\n"
            "  the model there has norms of queries and keys, as Qwen3, which LanguageModel has not\n"
            "  unexpected  model.layers.0.self_attn.q_norm.weight",
        ),
        ({"score.weight": torch.ones(2, 12)}, "has another head, which LanguageModel has not\n  unexpected  score"),
        ({"lm_head.weight": GONE}, "there is no head there, and .*\n  missing     lm_head.weight"),
        ({"model.layers.0.mlp.up_proj.bias": torch.ones(20)}, r"  unexpected  model\.layers\.0\.mlp\.up_proj\.bias"),
        ({"model.layers.2.mlp.up_proj.weight": torch.ones(20)}, r"  unexpected  model\.layers\.2\.mlp"),
        ({"model.norm.weight": torch.ones(13)}, r"model\.norm\.weight, which has .*\n(.*\n)*.*m is 13 here, but 12"),
        (
            {"model.layers.1.self_attn.k_proj.weight": torch.ones(12, 12)},
            r"k_proj\.weight, which has other axes\n(.*\n)*.*b is 12 here, but 4",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(changes: dict[str, Tensor], said: str) -> None:
    other = theirs("Llama")
    with pytest.raises(models.WeightsError, match=said):
        LanguageModel.from_huggingface(changed(other.state_dict(), **changes), config=other.config)


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("Llama", {"model_type": "gemma"}, "model_type is gemma; it may be gpt2, gpt_neox, llama, mistral, qwen2"),
        ("Llama", {"attention_bias": True}, "attention_bias is True and mlp_bias is False"),
        ("Llama", {"rope_parameters": {**WHOLE, "rope_type": "yarn", "factor": 2.0}}, "of the kind yarn; here they"),
        ("Llama", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, "of the kind linear"),
        ("Llama", {"hidden_act": "relu2"}, "the activation is relu2; here it may be gelu, "),
        ("Llama", {"quantization_config": {"bits": 4}}, "the weights are quantized"),
        ("Qwen2 in windows", {"layer_types": ["full_attention", "sliding_attention"]}, "1 of 2 layers have a sliding"),
        ("GPT-2", {"add_cross_attention": True}, "add_cross_attention of this GPT-2 is True; here it may be False"),
        ("GPT-2", {"scale_attn_weights": False}, "scale_attn_weights of this GPT-2 is False; here it may be True"),
        ("GPT-2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx of this GPT-2 is True"),
        ("GPT-NeoX", {"attention_bias": False}, "attention_bias of this GPT-NeoX is False; here it may be True"),
    ],
)  # fmt: skip
def test_settings_without_an_equal_are_refused_by_name(case: str, changes: dict[str, Any], said: str) -> None:
    other = theirs(case)
    config = {**other.config.to_dict(), **changes}
    with pytest.raises(CircuitError, match=said):
        LanguageModel.from_huggingface(other.state_dict(), config=config)


def test_a_configuration_is_needed_and_must_be_one() -> None:
    other = theirs("Llama")
    with pytest.raises(CircuitError, match=r"the weights alone do not determine the model; give config="):
        LanguageModel.from_huggingface(other.state_dict())
    with pytest.raises(CircuitError, match=r"config may be that of transformers or the mapping in config.json, not 3"):
        LanguageModel.from_huggingface(other.state_dict(), config=3)
    with pytest.raises(CircuitError, match="takes a module, a state dict or a path, not a int"):
        LanguageModel.from_huggingface(3)  # pyright: ignore[reportArgumentType]
    config = other.config.to_dict()
    del config["hidden_size"]
    with pytest.raises(CircuitError, match="the configuration of this llama has no hidden_size"):
        LanguageModel.from_huggingface(other.state_dict(), config=config)


def test_a_tied_head_must_equal_the_embedding() -> None:
    other = theirs("Llama 3.2, tied")
    state = dict(other.state_dict())
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    LanguageModel.from_huggingface(state, config=other.config)
    state["lm_head.weight"][0, 0] += 1
    with pytest.raises(models.WeightsError, match="ties the head to the embedding, and they differ"):
        LanguageModel.from_huggingface(state, config=other.config)
    free = {**other.config.to_dict(), "tie_word_embeddings": False}
    untied = LanguageModel.from_huggingface(state, config=free)
    assert untied.head is not None
    assert torch.equal(untied.head.weight, state["lm_head.weight"])


def test_a_tied_model_takes_a_file_with_an_equal_head() -> None:
    """Also inside another module; a head that differs is unexpected."""
    tied, untied = LanguageModel(11, 12, 4, 3, 20, 1), LanguageModel(11, 12, 4, 3, 20, 1, tied=False)
    assert untied.head is not None
    with torch.no_grad():
        untied.head.weight.copy_(untied.embedding.weight)
    tied.load_state_dict(untied.state_dict())
    assert torch.equal(tied.embedding.weight, untied.embedding.weight)
    nn.Sequential(tied).load_state_dict(nn.Sequential(untied).state_dict())
    state = untied.state_dict()
    before = {**state}
    tied.load_state_dict(state)
    assert state.keys() == before.keys()
    with torch.no_grad():
        untied.head.weight[0, 0] += 1
    with pytest.raises(models.WeightsError, match=r"unexpected  head\.weight"):
        tied.load_state_dict(untied.state_dict())


# --- Files ------------------------------------------------------------------------------------------------------------


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("it was executed",)

    other = theirs("Llama")
    other.config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CircuitError, match=r"pytorch_model\.bin is pickled, and never opened: convert it"):
        LanguageModel.from_huggingface(tmp_path)
    with pytest.raises(CircuitError, match="is not a complete safetensors file"):
        LanguageModel.from_huggingface(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "has no weight_map"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("["), "is not JSON"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("[1]"), r"is not a mapping but \[1\]"),
        (lambda folder: repoint(folder, "../model-00001-of-00003.safetensors"), "which is not a file in its folder"),
        (lambda folder: repoint(folder, "none.safetensors"), "refers to none.safetensors, and there is no such file"),
        (lambda folder: repoint(folder, None), r"refers to model.norm.weight in .*, which is not there"),
        (lambda folder: first(folder).write_bytes(first(folder).read_bytes()[:-9]), "is not a complete safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").unlink(), "has several files of weights"),
        (lambda folder: (folder / "config.json").unlink(), "give config="),
    ],
)  # fmt: skip
def test_spoiled_folders_are_refused(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    theirs("Llama").save_pretrained(tmp_path, max_shard_size="3kB")
    spoil(tmp_path)
    with pytest.raises(CircuitError, match=said):
        LanguageModel.from_huggingface(tmp_path)


def first(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def repoint(folder: Path, shard: str | None) -> None:
    """The index with the last norm in another file, or, for None, with the norm in a file that lacks it."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    if shard is None:
        where = folder / index["weight_map"]["model.norm.weight"]
        save_file({name: value for name, value in load_file(where).items() if name != "model.norm.weight"}, where)
    else:
        index["weight_map"]["model.norm.weight"] = shard
        path.write_text(json.dumps(index))


def test_a_path_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match="has no safetensors file, and no index of several"):
        LanguageModel.from_huggingface(tmp_path)
    with pytest.raises(FileNotFoundError):
        LanguageModel.from_huggingface(tmp_path / "nowhere.safetensors")
