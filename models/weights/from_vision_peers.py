"""The weights of timm's and of Hugging Face's vision transformers under our names, and back.

They are renamed, cut, and reshaped, and nothing else. Both sides are state dicts, tensors by name: neither library is
imported, and no file is read. What a weight's axes are is said in a table, and held against every tensor that comes.

Source: the names of timm 1.0 and of transformers 5; those before 5, which most files on the Hub have.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits import ShapeError, check, rearrange

from .errors import MOST, WeightsError


@dataclass(frozen=True)
class Part:
    """A tensor of theirs: its name, its axes, and our names for it, several where it holds ours one after another."""

    name: str
    axes: str
    ours: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Tensors under our names, the size of every axis that they have, `depth` among them, and who asked for them."""

    name: str
    sizes: dict[str, int]
    tensors: dict[str, Tensor]


Table = Sequence[tuple[str, str, str]]

# Theirs, its axes, ours. `a` are all heads, (h k).
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
"""With a class token, which is read after `norm`."""

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
"""As transformers 5 names them."""

_EARLIER = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _changed(table: Table, names: Mapping[str, str]) -> Table:
    """The table with parts of their names replaced."""

    def change(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    return tuple((change(theirs), axes, ours) for theirs, axes, ours in table)


TIMM_MEAN = tuple(row for row in _changed(TIMM, {"norm.": "fc_norm."}) if row[2] != "class_token")
"""Without a class token: the mean over the patches is read, and then normed."""

EARLIER = _changed(HUGGING_FACE, _EARLIER)
"""As transformers named them before 5."""

_OURS = {"m c p q": "m (c p q)", "1 1 m": "m", "1 x m": "x m"}
"""Where our axes are others than theirs."""


def timm_table(state: Mapping[str, Tensor]) -> Table:
    """The names of a state dict of timm's."""
    return TIMM if "cls_token" in state else TIMM_MEAN


def hugging_face_table(state: Mapping[str, Tensor]) -> Table:
    """The names of a state dict of Hugging Face's, of any age; those of a model without a head begin below `vit`."""
    table = EARLIER if any("encoder.layer." in name for name in state) else HUGGING_FACE
    return table if any(name.startswith("vit.") for name in state) else _changed(table, {"vit.": ""})


def read(name: str, table: Table, state: Mapping[str, Tensor], classes: int | None) -> Weights:
    """The tensors of a state dict under our names; with `classes`, the head is not theirs but zeros for so many.

    Raises WeightsError, which begins with `name`, for tensors that are missing, have no place here, or other axes.
    """
    depth = _depth(table, state)
    parts = list(_parts(table, depth))
    head = {part.name for part in parts if part.ours[0].startswith("head.")}
    expected = {part.name for part in parts}
    if classes is not None:
        parts, expected = [part for part in parts if part.name not in head], expected - head
    _compare(name, expected, state.keys() - (head - expected), head)
    found = Weights(name, {"depth": depth}, {})
    for part in parts:
        tensor = state[part.name]
        _measure(name, part, tensor, found.sizes)
        if part.axes in _OURS:
            tensor = rearrange(tensor, f"{part.axes} -> {_OURS[part.axes]}")
        found.tensors.update(zip(part.ours, tensor.chunk(len(part.ours)), strict=True))
    if classes is not None:
        found.sizes["n"], like = classes, found.tensors["norm.weight"]
        found.tensors.update({"head.weight": like.new_zeros(classes, len(like)), "head.bias": like.new_zeros(classes)})
    return found


def write(table: Table, state: Mapping[str, Tensor], depth: int, **sizes: int) -> dict[str, Tensor]:
    """Tensors under our names, under theirs; `sizes` are those of the axes that ours have joined."""
    found = {}
    for part in _parts(table, depth):
        values = [state[each] for each in part.ours]
        value = torch.cat(values) if len(values) > 1 else values[0]
        if part.axes in _OURS:
            known = {axis: sizes[axis] for axis in part.axes.split() if axis in sizes}
            value = rearrange(value, f"{_OURS[part.axes]} -> {part.axes}", **known)
        found[part.name] = value
    return found


def _parts(table: Table, depth: int) -> Iterator[Part]:
    """Every row of a table for every layer that it stands for."""
    for name, axes, mine in table:
        for layer in range(depth) if "{}" in name else [None]:
            yield Part(name.format(layer), axes, tuple([each.format(layer) for each in mine.split()]))


def _depth(table: Table, state: Mapping[str, Tensor]) -> int:
    """How many layers there are, at least one, by the largest number among their names."""
    start = re.escape(next(name for name, _, _ in table if "{}" in name).split("{}")[0])
    found = (re.match(rf"{start}(\d+)\.", name) for name in state)
    return max((int(each[1]) + 1 for each in found if each), default=1)


def _compare(name: str, expected: Set[str], given: Set[str], head: Set[str]) -> None:
    """Raise WeightsError unless two sets of names are one."""
    missing, unexpected = sorted(expected - given), sorted(given - expected)
    if not missing and not unexpected:
        return
    lines = [f"{name} cannot take these weights:"]
    for what, them in (("missing", missing), ("unexpected", unexpected)):
        more = [f"and {len(them) - MOST} more"] if len(them) > MOST else []
        lines += [f"  {what:<12}{each}" for each in (*them[:MOST], *more)]
    if any(each in head for each in missing):
        lines.append("  with classes= it has a new head, which begins at 0")
    raise WeightsError("\n".join(lines))


def _measure(name: str, part: Part, tensor: Tensor, sizes: dict[str, int]) -> None:
    """Hold a tensor against its axes, of which those seen before have sizes; the others get theirs."""
    names = re.findall(r"[a-z]", part.axes)
    try:
        sizes.update(check(tensor, part.axes, **{axis: sizes[axis] for axis in names if axis in sizes}))
    except ShapeError as error:
        raise WeightsError(f"{name} cannot take {part.name}, which has other axes\n{error}") from None
