"""Conversion of Hugging Face's language models to a LanguageModel, from a module, a state dict or files.

The families and the names of their weights are in `from_language_peers`, the reading of files in `sources`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from circuits import CircuitError

from . import sources
from .errors import WeightsError
from .from_language_peers import FAMILIES, Family
from .renaming import read


class LanguageModelConversions(nn.Module):
    """The conversion of weights to a LanguageModel, and the rule for a head that is tied; nothing else inherits it."""

    _kinds: ClassVar[Mapping[str, Any]]
    """The classes `rotary` and `scaled rotary` of positions, and `gated` of feed-forward networks."""

    vocabulary: int
    head: nn.Linear | None

    @classmethod
    def from_huggingface(
        cls,
        weights: sources.Weights,
        *,
        config: Any = None,
        prefix: str = "",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Return a model with the weights, and so the logits, of a language model of Hugging Face's transformers.

        The families are GPT-2, GPT-NeoX, Llama, Mistral and Qwen2, each by its `model_type`. Nothing is downloaded or
        executed, and pickled weights are not opened.

        Args:
            weights: The module (a causal language model, or one without a head whose head is tied), its state dict, or
                the path of a folder with `config.json` and safetensors weights, in one file or in several with an
                index, or the path of such a file or index.
            config: The configuration: that of transformers, or the mapping in `config.json`. It is needed only with a
                state dict, or with a file that has no `config.json` beside it.
            prefix: Text with which every name begins, such as "_orig_mod.", and which is removed.
            device: Device of the parameters; torch's default device unless given, and that of a module or state dict.
            dtype: Dtype of the parameters; that of the weights unless given.
            **options: Further arguments of the constructor: `dropout`, which is 0 unless given.

        Raises:
            WeightsError: if weights are missing or unexpected, or have other axes; the reason is named if known.
            CircuitError: if the family or a setting is not supported, or there is no configuration.
            FileNotFoundError: if there is no such file or folder.
        """
        name = "LanguageModel.from_huggingface"
        source = sources.read(name, weights, config, prefix)
        if source.config is None:
            raise CircuitError(
                f"{name}: the weights alone do not determine the model; give config=, the model's configuration or the"
                " mapping in its config.json"
            )
        family, arguments = _arguments(name, source.config)
        tensors = _read(name, family, source.state, {**arguments, "vocabulary": source.config["vocab_size"]})
        like = tensors["embedding.weight"]
        gated, rotary = arguments.pop("gated", False), arguments.pop("rotary", None)
        if gated:
            arguments["feed_forward"] = cls._kinds["gated"]
        if rotary is not None:
            arguments["rotary"] = cls._kinds["scaled rotary" if "factor" in rotary else "rotary"](**rotary)
        made = {**arguments, **options}
        model = cls(source.config["vocab_size"], **made, device="meta", dtype=like.dtype if dtype is None else dtype)
        if device is None and isinstance(weights, nn.Module | Mapping):
            device = like.device
        model.to_empty(device=torch.get_default_device() if device is None else device).load_state_dict(tensors)
        return model.train(source.training)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Load a state dict; a head that equals the embedding is accepted by a model whose head is tied to it."""
        head, embedding = (state_dict.get(f"{prefix}{name}.weight") for name in ("head", "embedding"))
        if self.head is None and _are_equal(head, embedding):
            del state_dict[f"{prefix}head.weight"]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _arguments(name: str, config: Mapping[str, Any]) -> tuple[Family, dict[str, Any]]:
    """Return the family of a configuration, and the arguments that follow from it; raise CircuitError if none fits."""
    kind = f"{config.get('model_type')}"
    if kind not in FAMILIES:
        raise CircuitError(f"{name}: model_type is {kind:.60}; it may be {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        raise CircuitError(f"{name}: the weights are quantized (quantization_config); here they are floating numbers")
    try:
        return FAMILIES[kind], FAMILIES[kind].arguments(config)
    except KeyError as missing:
        raise CircuitError(f"{name}: the configuration of this {kind} has no {missing.args[0]}") from None
    except CircuitError as error:
        raise CircuitError(f"{name}: {error}") from None


def _read(name: str, family: Family, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors under their names here."""
    naming, bias = family.naming, arguments.get("bias", True)
    bare = naming.renamed({family.base: ""})
    earlier = [each.renamed({"lm_head": "embed_out"}) for each in (naming, bare)]  # GPT-NeoX before transformers 5
    alike = [naming, bare, *earlier]
    naming = max(alike, key=lambda each: len({row[0].replace("{}", "0") for row in each.table} & state.keys()))
    without = {own for _, _, own in naming.table if not _has(own, bias, arguments.get("qkv_bias", bias))}
    tied = arguments["tied"]
    sizes = {size: arguments[size] for size in ("m", "k", "h", "f", "depth")}
    sizes |= {"t": 3, "v": arguments["vocabulary"], "a": sizes["h"] * sizes["k"]}
    sizes |= {"b": arguments.get("groups", sizes["h"]) * sizes["k"]}
    left_out = ("head.weight",) if tied else ()
    found = read(name, naming.without(*without), state, sizes, left_out=left_out, alike=alike)
    heads = [state[row[0]] for row in naming.table if row[2] == "head.weight" and row[0] in state]
    if tied and any(not _are_equal(head, found.tensors["embedding.weight"]) for head in heads):
        raise WeightsError(
            f"{name} cannot take these weights: the configuration ties the head to the embedding, and they differ; give"
            " a config with tie_word_embeddings=False to keep both"
        )
    return found.tensors


def _has(own_names: str, bias: bool, qkv_bias: bool) -> bool:
    """Return whether a model has a tensor: weights, and biases as the two arguments say."""
    if not own_names.endswith(".bias"):
        return True
    return qkv_bias if ".Lq." in own_names or ".Lk." in own_names or ".Lv." in own_names else bias


def _are_equal(head: Any, embedding: Any) -> bool:
    """Return whether two tensors that hold numbers are equal."""
    if not isinstance(head, Tensor) or not isinstance(embedding, Tensor) or head.is_meta or embedding.is_meta:
        return False
    alike = head.shape == embedding.shape and head.dtype == embedding.dtype
    return head is embedding or (alike and torch.equal(head, embedding.to(head.device)))
