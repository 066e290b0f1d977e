"""Hugging Face's language models for LanguageModel: GPT-2, GPT-NeoX, and the family of Llama, Mistral and Qwen2.

A configuration, the mapping in `config.json`, becomes the arguments of LanguageModel; a table names the weights of each
family. A setting that LanguageModel does not have is refused by its name. The library itself is not imported. Start
with `FAMILIES`; `language_conversions` has the method that users call.

Source: the configurations and names of transformers 5, which also reads those of earlier versions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from circuits import CircuitError

from .activations import by_name
from .renaming import Naming

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """How the models of one `model_type` are read: their names, and the arguments that follow from a configuration."""

    naming: Naming
    base: str
    """The prefix of all names but the head's, which a model without a head lacks."""
    arguments: Callable[[Config], dict[str, Any]]
    """Arguments of LanguageModel; `rotary` as the arguments of RotaryPositions or, with `factor`, the scaled kind."""


_HAS = {
    r"\.[qk]_norm\.": "norms of queries and keys, as Qwen3",
    r"\.crossattention\.|ln_cross_attn": "cross-attention",
    r"experts|block_sparse_moe|\.router\.": "a mixture of experts",
    r"(pre|post)_feedforward_layernorm": "further norms in a layer, as Gemma 2",
    r"lora_|\.base_layer\.": "adapters (merge them into the weights first)",
    r"\.(qweight|qzeros|weight_scale\w*|absmax|SCB|quant_map)$": "quantized weights",
    r"^(score|classifier|qa_outputs)\.": "another head",
}
_LACKS = {
    r"^lm_head\.|^embed_out\.": "there is no head there, and the configuration does not tie it to the embedding",
    r"\.bias$": "some linear maps have no bias there",
}
_STORED = r"\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$|rotary_emb\.inv_freq$"
"""Masks and frequencies, which earlier versions stored beside the weights."""


_QKV = "layers.{}.attention.Lq layers.{}.attention.Lk layers.{}.attention.Lv"
_NORMS = "layers.{}.attention_norm", "layers.{}.feed_forward_norm"
_L1, _L2, _L3 = (f"layers.{{}}.feed_forward.L{number}" for number in (1, 2, 3))


def _naming(*rows: tuple[str, str, str, str]) -> Naming:
    """Return a naming; a row has a name there, the name here, and the axes of weight and bias, if it has one or may."""
    table = [(f"{name}.weight", weight, _suffixed(own, "weight")) for name, own, weight, _ in rows]
    table += [(f"{name}.bias", bias, _suffixed(own, "bias")) for name, own, _, bias in rows if bias]
    return Naming(tuple(table), "LanguageModel", _HAS, _LACKS, _STORED)


def _suffixed(names: str, kind: str) -> str:
    """Return the names of tensors of a kind, weight or bias."""
    return " ".join(f"{name}.{kind}" for name in names.split())


# In GPT-2 weights are stored as (input, output), and in GPT-NeoX query, key and value weights of one head are adjacent.
# `t` is 3, the three of them; `a` is (h k), `b` is (g k).
_GPT_2 = _naming(
    ("transformer.wte", "embedding", "v m", ""),
    ("transformer.wpe", "positions", "x m", ""),
    ("transformer.h.{}.ln_1", _NORMS[0], "m", "m"),
    ("transformer.h.{}.attn.c_attn", _QKV, "m (t a) -> (t a) m", "(t a)"),
    ("transformer.h.{}.attn.c_proj", "layers.{}.attention.Lo", "a m -> m a", "m"),
    ("transformer.h.{}.ln_2", _NORMS[1], "m", "m"),
    ("transformer.h.{}.mlp.c_fc", _L1, "m f -> f m", "f"),
    ("transformer.h.{}.mlp.c_proj", _L2, "f m -> m f", "m"),
    ("transformer.ln_f", "norm", "m", "m"),
    ("lm_head", "head", "v m", ""),
)
_GPT_NEOX = _naming(
    ("gpt_neox.embed_in", "embedding", "v m", ""),
    ("gpt_neox.layers.{}.input_layernorm", _NORMS[0], "m", "m"),
    ("gpt_neox.layers.{}.attention.query_key_value", _QKV, "(h t k) m -> (t h k) m", "(h t k) -> (t h k)"),
    ("gpt_neox.layers.{}.attention.dense", "layers.{}.attention.Lo", "m a", "m"),
    ("gpt_neox.layers.{}.post_attention_layernorm", _NORMS[1], "m", "m"),
    ("gpt_neox.layers.{}.mlp.dense_h_to_4h", _L1, "f m", "f"),
    ("gpt_neox.layers.{}.mlp.dense_4h_to_h", _L2, "m f", "m"),
    ("gpt_neox.final_layer_norm", "norm", "m", "m"),
    ("lm_head", "head", "v m", ""),
)
_LLAMA = _naming(
    ("model.embed_tokens", "embedding", "v m", ""),
    ("model.layers.{}.input_layernorm", _NORMS[0], "m", ""),
    ("model.layers.{}.self_attn.q_proj", "layers.{}.attention.Lq", "a m", "a"),
    ("model.layers.{}.self_attn.k_proj", "layers.{}.attention.Lk", "b m", "b"),
    ("model.layers.{}.self_attn.v_proj", "layers.{}.attention.Lv", "b m", "b"),
    ("model.layers.{}.self_attn.o_proj", "layers.{}.attention.Lo", "m a", "m"),
    ("model.layers.{}.post_attention_layernorm", _NORMS[1], "m", ""),
    ("model.layers.{}.mlp.gate_proj", _L1, "f m", "f"),
    ("model.layers.{}.mlp.down_proj", _L2, "m f", "m"),
    ("model.layers.{}.mlp.up_proj", _L3, "f m", "f"),
    ("model.norm", "norm", "m", ""),
    ("lm_head", "head", "v m", ""),
)


def gpt_2(config: Config) -> dict[str, Any]:
    """Return the arguments for a configuration of GPT-2."""
    refuse("GPT-2", config, add_cross_attention=False, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    m, h = config["n_embd"], config["n_head"]
    return {
        "m": m,
        "k": m // h,
        "h": h,
        "f": config.get("n_inner") or 4 * m,
        "depth": config["n_layer"],
        "activation": by_name(config.get("activation_function", "gelu_new")),
        "learned_positions": config["n_positions"],
        "tied": config.get("tie_word_embeddings", True),
        "eps": config.get("layer_norm_epsilon", 1e-5),
    }


def gpt_neox(config: Config) -> dict[str, Any]:
    """Return the arguments for a configuration of GPT-NeoX."""
    refuse("GPT-NeoX", config, attention_bias=True)
    sizes = _sizes(config)
    return sizes | {
        "activation": by_name(config.get("hidden_act", "gelu")),
        "parallel": config.get("use_parallel_residual", True),
        "rotary": rotary(config, sizes["k"], config.get("rotary_pct", 0.25)),
        "eps": config.get("layer_norm_eps", 1e-5),
    }


def llama(config: Config, window: Callable[[Config], int | None] = lambda _: None, **bias: bool) -> dict[str, Any]:
    """Return the arguments for a configuration of Llama's family.

    Args:
        config: The configuration.
        window: Returns the sliding window.
        **bias: Whether linear maps have a bias, and `qkv_bias`; as the configuration says unless given.
    """
    sizes = _sizes(config)
    if not bias:
        bias = {"bias": config.get("mlp_bias", False)}
        if config.get("attention_bias", False) != bias["bias"]:
            raise CircuitError(
                f"attention_bias is {config.get('attention_bias', False)} and mlp_bias is {bias['bias']}; here either"
                " all linear maps have a bias, or none, or those of queries, keys and values"
            )
    return {
        **sizes,
        **bias,
        "activation": by_name(config.get("hidden_act", "silu")),
        "groups": config.get("num_key_value_heads") or sizes["h"],
        "window": window(config),
        "norm": nn.RMSNorm,
        "gated": True,
        "rotary": rotary(config, sizes["k"], config.get("partial_rotary_factor", 1.0)),
        "eps": config.get("rms_norm_eps", 1e-6),
    }


def mistral_window(config: Config) -> int | None:
    """Return the sliding window of Mistral."""
    return config.get("sliding_window", 4096)


def qwen2_window(config: Config) -> int | None:
    """Return the sliding window of Qwen2; raise CircuitError if only some layers have one."""
    depth, window = config["num_hidden_layers"], config.get("sliding_window", 4096)
    slides = config.get("use_sliding_window", False) and window is not None
    full = min(config.get("max_window_layers", 28), depth) if slides else depth
    kinds = config.get("layer_types") or ["full_attention"] * full + ["sliding_attention"] * (depth - full)
    if len({*kinds}) > 1:
        raise CircuitError(
            f"{kinds.count('sliding_attention')} of {depth} layers have a sliding window; here all or none"
        )
    return window if "sliding_attention" in kinds else None


def _sizes(config: Config) -> dict[str, Any]:
    """Return the sizes that configurations but GPT-2's name alike."""
    m, h = config["hidden_size"], config["num_attention_heads"]
    return {
        "m": m,
        "k": config.get("head_dim") or m // h,
        "h": h,
        "f": config["intermediate_size"],
        "depth": config["num_hidden_layers"],
        "tied": config.get("tie_word_embeddings", False),
    }


def rotary(config: Config, k: int, share: float) -> dict[str, Any]:
    """Return the arguments of the rotary positions, where a share of the entries is rotated unless the rules say else.

    Raises CircuitError for a kind of scaling that is not supported.
    """
    rules = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rules.get("rope_type", rules.get("type", "default"))
    if any(isinstance(each, Mapping) for each in rules.values()) or kind not in ("default", "llama3"):
        named = ", ".join(rules) if kind == "default" else kind
        raise CircuitError(f"rotary positions are of the kind {named}; here they may be default or llama3")
    base = rules.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or 10000.0
    rotated = int(k * rules.get("partial_rotary_factor", share))
    if kind == "default":
        return {"k": k, "base": base, "rotated": None if rotated == k else rotated}
    if rotated != k:
        raise CircuitError(f"{rotated} of {k} entries are rotated, with scaled frequencies; here all are")
    length = rules.get("original_max_position_embeddings", config.get("max_position_embeddings"))
    names = {"factor": "factor", "low": "low_freq_factor", "high": "high_freq_factor"}
    return {"k": k, "base": base, "length": length, **{name: rules[theirs] for name, theirs in names.items()}}


def refuse(kind: str, config: Config, **supported: Any) -> None:
    """Raise CircuitError if a setting of the configuration has another value than the supported one, its default."""
    for name, value in supported.items():
        if config.get(name, value) != value:
            raise CircuitError(f"{name} of this {kind} is {config[name]}; here it may be {value}")


FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(_GPT_2, "transformer.", gpt_2),
    "gpt_neox": Family(_GPT_NEOX, "gpt_neox.", gpt_neox),
    "llama": Family(_LLAMA, "model.", llama),
    "mistral": Family(_LLAMA, "model.", partial(llama, window=mistral_window, bias=False)),
    "qwen2": Family(_LLAMA, "model.", partial(llama, window=qwen2_window, bias=False, qkv_bias=True)),
}
"""The families by `model_type`."""
