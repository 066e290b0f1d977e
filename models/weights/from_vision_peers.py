"""The weights of timm's and Hugging Face's vision transformers, renamed to and from the names of VisionTransformer.

Weights are renamed, split and reshaped, and not changed otherwise. Both sides are state dicts, tensors by name: neither
library is imported, and no file is read. Tables list the name and the axes of every weight, and each tensor is checked
against its row. Start with `read`; `models.weights.vision_conversions` has the methods that users call.

Source: the names of timm 1.0, of transformers 5, and of transformers before 5, as in most files on the Hub.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits import ShapeError, check, rearrange

from .errors import WeightsError, rows


@dataclass(frozen=True)
class Part:
    """A tensor of the other library: its name, its axes, and its name here, or several names if it joins tensors."""

    name: str
    axes: str
    own_names: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Tensors under their names here, the size of every axis and of `depth`; error messages begin with `name`."""

    name: str
    sizes: dict[str, int]
    tensors: dict[str, Tensor]


Table = Sequence[tuple[str, str, str]]

# Name in the other library, its axes, names here. `a` is the joined axis of all heads, (h k).
TIMM: Table = (
    ("patch_embed.proj.weight", "m c p q", "patches.L.weight"),
    ("patch_embed.proj.bias", "m", "patches.L.bias"),
    ("cls_token", "1 1 m", "class_token"),
    ("pos_embed", "1 x m", "positions"),
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
"""The names of timm's models with a class token; the head is applied to its vector after `norm`."""

HUGGING_FACE: Table = (
    ("vit.embeddings.patch_embeddings.projection.weight", "m c p q", "patches.L.weight"),
    ("vit.embeddings.patch_embeddings.projection.bias", "m", "patches.L.bias"),
    ("vit.embeddings.cls_token", "1 1 m", "class_token"),
    ("vit.embeddings.position_embeddings", "1 x m", "positions"),
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
"""The names of transformers 5."""

_EARLIER = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _renamed(table: Table, names: Mapping[str, str]) -> Table:
    """Return the table with parts of the other library's names replaced."""

    def rename(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    return tuple((rename(name), axes, own_names) for name, axes, own_names in table)


TIMM_MEAN = tuple(row for row in _renamed(TIMM, {"norm.": "fc_norm."}) if row[2] != "class_token")
"""The names of timm's models without a class token; the head is applied to the patches' mean after `fc_norm`."""

EARLIER = _renamed(HUGGING_FACE, _EARLIER)
"""The names of transformers before version 5."""

_OWN_AXES = {"m c p q": "m (c p q)", "1 1 m": "m", "1 x m": "x m"}
"""The axes of a tensor in the other library, with its axes here, where they differ."""


def timm_table(state: Mapping[str, Tensor]) -> Table:
    """Return the table for a state dict of timm."""
    return TIMM if "cls_token" in state else TIMM_MEAN


def hugging_face_table(state: Mapping[str, Tensor]) -> Table:
    """Return the table for a state dict of transformers, of any version, with or without the prefix `vit.`."""
    table = EARLIER if any("encoder.layer." in name for name in state) else HUGGING_FACE
    return table if any(name.startswith("vit.") for name in state) else _renamed(table, {"vit.": ""})


def read(name: str, table: Table, state: Mapping[str, Tensor], classes: int | None) -> Weights:
    """Return the tensors of a state dict under their names here.

    Args:
        name: Name of the calling method, with which error messages begin.
        table: The names and axes of the state dict.
        state: The other library's state dict.
        classes: If given, the head is replaced by one for this number of classes, initialized as 0.

    Raises:
        WeightsError: if tensors are missing or unexpected, or have other axes.
    """
    depth = _depth(table, state)
    parts = list(_parts(table, depth))
    head = {part.name for part in parts if part.own_names[0].startswith("head.")}
    expected = {part.name for part in parts}
    if classes is not None:
        parts, expected = [part for part in parts if part.name not in head], expected - head
    _compare(name, expected, state.keys() - (head - expected), head)
    weights = Weights(name, {"depth": depth}, {})
    for part in parts:
        tensor = state[part.name]
        _check_axes(name, part, tensor, weights.sizes)
        if part.axes in _OWN_AXES:
            tensor = rearrange(tensor, f"{part.axes} -> {_OWN_AXES[part.axes]}")
        weights.tensors.update(zip(part.own_names, tensor.chunk(len(part.own_names)), strict=True))
    if classes is not None:
        weights.sizes["n"], like = classes, weights.tensors["norm.weight"]
        weights.tensors.update(
            {"head.weight": like.new_zeros(classes, len(like)), "head.bias": like.new_zeros(classes)}
        )
    return weights


def write(table: Table, state: Mapping[str, Tensor], depth: int, **sizes: int) -> dict[str, Tensor]:
    """Return a state dict of this library under the other library's names.

    Args:
        table: The names and axes in the other library.
        state: The state dict of this library.
        depth: Number of layers.
        **sizes: Sizes of axes that are joined here and separate in the other library.
    """
    renamed = {}
    for part in _parts(table, depth):
        values = [state[each] for each in part.own_names]
        value = torch.cat(values) if len(values) > 1 else values[0]
        if part.axes in _OWN_AXES:
            known = {axis: sizes[axis] for axis in part.axes.split() if axis in sizes}
            value = rearrange(value, f"{_OWN_AXES[part.axes]} -> {part.axes}", **known)
        renamed[part.name] = value
    return renamed


def _parts(table: Table, depth: int) -> Iterator[Part]:
    """Iterate over the rows of a table, those of layers once for each layer."""
    for name, axes, own_names in table:
        for layer in range(depth) if "{}" in name else [None]:
            yield Part(name.format(layer), axes, tuple([each.format(layer) for each in own_names.split()]))


def _depth(table: Table, state: Mapping[str, Tensor]) -> int:
    """Return the number of layers: one more than the largest index of a layer in the names, at least 1."""
    start = re.escape(next(name for name, _, _ in table if "{}" in name).split("{}")[0])
    matches = (re.match(rf"{start}(\d+)\.", name) for name in state)
    return max((int(each[1]) + 1 for each in matches if each), default=1)


def _compare(name: str, expected: Set[str], given: Set[str], head: Set[str]) -> None:
    """Raise WeightsError unless the given names are the expected ones."""
    missing, unexpected = sorted(expected - given), sorted(given - expected)
    if not missing and not unexpected:
        return
    lines = [f"{name} cannot take these weights:"]
    lines += rows("missing", missing) + rows("unexpected", unexpected)
    if any(each in head for each in missing):
        lines.append("  with classes= the model gets a new head, initialized as 0")
    raise WeightsError("\n".join(lines))


def _check_axes(name: str, part: Part, tensor: Tensor, sizes: dict[str, int]) -> None:
    """Check a tensor's shape against its axes and the sizes known so far, to which the sizes of new axes are added."""
    names = re.findall(r"[a-z]", part.axes)
    try:
        sizes.update(check(tensor, part.axes, **{axis: sizes[axis] for axis in names if axis in sizes}))
    except ShapeError as error:
        raise WeightsError(f"{name} cannot take {part.name}, which has other axes\n{error}") from None
