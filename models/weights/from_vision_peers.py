"""The names of weights in timm's and Hugging Face's vision transformers, for VisionTransformer.

Neither library is imported. Start with `read`; `renaming` applies the tables, and `vision_conversions` has the methods
that users call.

Source: the names of timm 1.0, of transformers 5, and of transformers before 5, as in most files on the Hub.
"""

from collections.abc import Mapping

from torch import Tensor

from . import renaming
from .renaming import Naming, Table, Weights

# Name in the other library, its axes, names here. `a` is the joined axis of all heads, (h k).
_TIMM: Table = (
    ("patch_embed.proj.weight", "m c p q -> m (c p q)", "patches.L.weight"),
    ("patch_embed.proj.bias", "m", "patches.L.bias"),
    ("cls_token", "1 1 m -> m", "class_token"),
    ("pos_embed", "1 x m -> x m", "positions"),
    ("blocks.{}.norm1.weight", "m", "layers.{}.attention_norm.weight"),
    ("blocks.{}.norm1.bias", "m", "layers.{}.attention_norm.bias"),
    (
        "blocks.{}.attn.qkv.weight",
        "3*a m",
        "layers.{}.attention.Lq.weight layers.{}.attention.Lk.weight layers.{}.attention.Lv.weight",
    ),
    (
        "blocks.{}.attn.qkv.bias",
        "3*a",
        "layers.{}.attention.Lq.bias layers.{}.attention.Lk.bias layers.{}.attention.Lv.bias",
    ),
    ("blocks.{}.attn.proj.weight", "m a", "layers.{}.attention.Lo.weight"),
    ("blocks.{}.attn.proj.bias", "m", "layers.{}.attention.Lo.bias"),
    ("blocks.{}.norm2.weight", "m", "layers.{}.feed_forward_norm.weight"),
    ("blocks.{}.norm2.bias", "m", "layers.{}.feed_forward_norm.bias"),
    ("blocks.{}.mlp.fc1.weight", "f m", "layers.{}.feed_forward.L1.weight"),
    ("blocks.{}.mlp.fc1.bias", "f", "layers.{}.feed_forward.L1.bias"),
    ("blocks.{}.mlp.fc2.weight", "m f", "layers.{}.feed_forward.L2.weight"),
    ("blocks.{}.mlp.fc2.bias", "m", "layers.{}.feed_forward.L2.bias"),
    ("norm.weight", "m", "norm.weight"),
    ("norm.bias", "m", "norm.bias"),
    ("head.weight", "n m", "head.weight"),
    ("head.bias", "n", "head.bias"),
)

_HUGGING_FACE: Table = (
    ("vit.embeddings.patch_embeddings.projection.weight", "m c p q -> m (c p q)", "patches.L.weight"),
    ("vit.embeddings.patch_embeddings.projection.bias", "m", "patches.L.bias"),
    ("vit.embeddings.cls_token", "1 1 m -> m", "class_token"),
    ("vit.embeddings.position_embeddings", "1 x m -> x m", "positions"),
    ("vit.layers.{}.layernorm_before.weight", "m", "layers.{}.attention_norm.weight"),
    ("vit.layers.{}.layernorm_before.bias", "m", "layers.{}.attention_norm.bias"),
    ("vit.layers.{}.attention.q_proj.weight", "a m", "layers.{}.attention.Lq.weight"),
    ("vit.layers.{}.attention.q_proj.bias", "a", "layers.{}.attention.Lq.bias"),
    ("vit.layers.{}.attention.k_proj.weight", "a m", "layers.{}.attention.Lk.weight"),
    ("vit.layers.{}.attention.k_proj.bias", "a", "layers.{}.attention.Lk.bias"),
    ("vit.layers.{}.attention.v_proj.weight", "a m", "layers.{}.attention.Lv.weight"),
    ("vit.layers.{}.attention.v_proj.bias", "a", "layers.{}.attention.Lv.bias"),
    ("vit.layers.{}.attention.o_proj.weight", "m a", "layers.{}.attention.Lo.weight"),
    ("vit.layers.{}.attention.o_proj.bias", "m", "layers.{}.attention.Lo.bias"),
    ("vit.layers.{}.layernorm_after.weight", "m", "layers.{}.feed_forward_norm.weight"),
    ("vit.layers.{}.layernorm_after.bias", "m", "layers.{}.feed_forward_norm.bias"),
    ("vit.layers.{}.mlp.fc1.weight", "f m", "layers.{}.feed_forward.L1.weight"),
    ("vit.layers.{}.mlp.fc1.bias", "f", "layers.{}.feed_forward.L1.bias"),
    ("vit.layers.{}.mlp.fc2.weight", "m f", "layers.{}.feed_forward.L2.weight"),
    ("vit.layers.{}.mlp.fc2.bias", "m", "layers.{}.feed_forward.L2.bias"),
    ("vit.layernorm.weight", "m", "norm.weight"),
    ("vit.layernorm.bias", "m", "norm.bias"),
    ("classifier.weight", "n m", "head.weight"),
    ("classifier.bias", "n", "head.bias"),
)
_EARLIER = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

_HAS = {
    r"\.ls[12]\.gamma$|\.lambda_?[12]$|layer_scale": "LayerScale",
    r"\.[qk]_norm\.": "norms of queries and keys (qk_norm)",
    r"^reg_token$|register_tokens": "register tokens",
    r"^norm_pre\.": "a norm before the first layer (pre_norm)",
    r"^(dist_token|head_dist)|distillation": "a distillation token",
    r"\.mlp\.(norm|fc1_g|fc1_x|w12|w3)\b": "another feed-forward network",
    r"^attn_pool\.": "attention pooling",
    r"relative_position|rel_pos": "relative positions",
    r"^(vit\.)?pooler\.": "a pooler (left out with add_pooling_layer=False)",
    r"mask_token$": "a token for masked patches",
}
_LACKS = {
    r"^(head|classifier)\.": "there is no head there; with classes= the model gets a new one, initialized as 0",
    r"(qkv|query|q_proj)\.bias$": "the maps to queries, keys and values have no bias there (qkv_bias=False)",
    r"^cls_token$": "there is neither a class token nor a norm after the mean over patches (fc_norm) there",
    r"pos_embed$|position_embeddings$": "there are no learned positions there",
    r"norm\d?\.bias$": "norms have no bias there",
}

TIMM = Naming(
    _TIMM, "VisionTransformer", {**_HAS, r"^fc_norm\.": "a norm after the mean over patches (fc_norm)"}, _LACKS
)
"""The names of timm's models with a class token; the head is applied to its vector after `norm`."""

TIMM_MEAN = Naming(_TIMM, "VisionTransformer", _HAS, _LACKS).renamed({"norm.": "fc_norm."}).without("class_token")
"""The names of timm's models without a class token; the head is applied to the patches' mean after `fc_norm`."""

HUGGING_FACE = Naming(_HUGGING_FACE, "VisionTransformer", _HAS, _LACKS)
"""The names of transformers 5."""

EARLIER = HUGGING_FACE.renamed(_EARLIER)
"""The names of transformers before version 5."""

_BARE = tuple(each.renamed({"vit.": ""}) for each in (HUGGING_FACE, EARLIER))
"""The names of ViTModel, of both versions."""


def timm_naming(state: Mapping[str, Tensor]) -> Naming:
    """Return the naming of a state dict of timm."""
    return TIMM if "cls_token" in state or not any(name.startswith("fc_norm.") for name in state) else TIMM_MEAN


def hugging_face_naming(state: Mapping[str, Tensor]) -> Naming:
    """Return the naming of a state dict of transformers, of any version, with or without the prefix `vit.`."""
    earlier = any("encoder.layer." in name for name in state)
    return ((HUGGING_FACE, EARLIER) if any(name.startswith("vit.") for name in state) else _BARE)[earlier]


def read(name: str, naming: Naming, state: Mapping[str, Tensor], classes: int | None) -> Weights:
    """Return the tensors of a state dict under their names here; errors are those of `renaming.read`.

    Args:
        name: Name of the calling method, with which error messages begin.
        naming: The names and axes of the state dict.
        state: The other library's state dict.
        classes: If given, the head is replaced by one for this number of classes, initialized as 0.
    """
    alike = (TIMM, TIMM_MEAN) if naming in (TIMM, TIMM_MEAN) else (HUGGING_FACE, EARLIER, *_BARE)
    left_out = () if classes is None else ("head.weight", "head.bias")
    weights = renaming.read(name, naming, state, {}, left_out=left_out, alike=alike)
    if classes is not None:
        weights.sizes["n"], like = classes, weights.tensors["norm.weight"]
        new = {"head.weight": like.new_zeros(classes, len(like)), "head.bias": like.new_zeros(classes)}
        weights.tensors.update(new)
    return weights
