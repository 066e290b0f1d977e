"""Weights of another library under the names here: a table of names and axes, applied in both directions.

Weights are renamed, split and rearranged, and not changed otherwise. Each tensor is checked against the axes in its
row. If names differ, the message begins with the reason where one is known ("has LayerScale"), and the names follow.
Start with `read`; the tables are in `from_vision_peers` and `from_language_peers`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuits import ShapeError, check, rearrange

from .errors import WeightsError, nested_prefix, rows

Table = Sequence[tuple[str, str, str]]
"""Rows: a name in the other library, its axes, and its name here, or several names if it joins tensors along axis 0.

`{}` stands for the number of a layer. Axes that differ here follow an arrow: `1 x m -> x m`.
"""


@dataclass(frozen=True)
class Naming:
    """The names of a kind of model in another library, and what its differences from the kind here are called."""

    table: Table
    kind: str
    """The class here, for messages."""
    has: Mapping[str, str] = field(default_factory=dict)
    """For a pattern that matches unexpected names, what the other model has."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """For a pattern that matches missing names, the whole reason."""
    ignored: str = r"(?!)"
    """A pattern that matches the names of tensors that are not weights, such as a stored mask."""

    def renamed(self, names: Mapping[str, str]) -> "Naming":
        """Return the naming with parts of the other library's names replaced."""

        def rename(name: str) -> str:
            for old, new in names.items():
                name = name.replace(old, new)
            return name

        table = tuple((rename(name), axes, own_names) for name, axes, own_names in self.table)
        return Naming(table, self.kind, self.has, self.lacks, self.ignored)

    def without(self, *own_names: str) -> "Naming":
        """Return the naming without the rows of these names here."""
        table = tuple(row for row in self.table if row[2] not in own_names)
        return Naming(table, self.kind, self.has, self.lacks, self.ignored)


@dataclass(frozen=True)
class Part:
    """A tensor of the other library: its name, its axes there and here, and its names here."""

    name: str
    axes: str
    own_axes: str
    own_names: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Tensors under their names here, and the size of every axis and of `depth`; error messages begin with `name`."""

    name: str
    sizes: dict[str, int]
    tensors: dict[str, Tensor]


def parts(table: Table, depth: int) -> Iterator[Part]:
    """Iterate over the rows of a table, those of layers once for each layer."""
    for name, text, own_names in table:
        axes, _, own_axes = text.partition(" -> ")
        for layer in range(depth) if "{}" in name else [None]:
            own = tuple([each.format(layer) for each in own_names.split()])
            yield Part(name.format(layer), axes, own_axes or axes, own)


def read(
    name: str,
    naming: Naming,
    state: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    *,
    left_out: Sequence[str] = (),
    alike: Sequence[Naming] = (),
) -> Weights:
    """Return the tensors of a state dict under their names here.

    Args:
        name: Name of the calling method, with which error messages begin.
        naming: The names and axes of the state dict.
        state: The other library's state dict.
        sizes: Known sizes of axes; without `depth`, the number of layers is counted.
        left_out: Names here of weights that are not read, whether the state dict has them or not.
        alike: Other namings, for finding the prefix of the names if they fit none.

    Raises:
        WeightsError: if tensors are missing or unexpected, or have other axes.
    """
    depth = sizes.get("depth", layers_in(naming.table, state))
    wanted = list(parts(naming.table, depth))
    skipped = {part.name for part in wanted if {*part.own_names} & {*left_out}}
    wanted = [part for part in wanted if part.name not in skipped]
    given = {each for each in state.keys() - skipped if not re.search(naming.ignored, each)}
    known = {part.name for each in (naming, *alike) for part in parts(each.table, depth)}
    _refuse_other_names(name, naming, {part.name for part in wanted}, given, known)
    weights = Weights(name, {**sizes, "depth": depth}, {})
    for part in wanted:
        tensor = state[part.name]
        _check_axes(name, part, tensor, weights.sizes)
        if part.axes != part.own_axes:
            named = re.findall(r"[a-z]", part.axes)
            known_sizes = {axis: weights.sizes[axis] for axis in named if axis in weights.sizes}
            tensor = rearrange(tensor, f"{part.axes} -> {part.own_axes}", **known_sizes)
        weights.tensors.update(zip(part.own_names, tensor.chunk(len(part.own_names)), strict=True))
    return weights


def write(naming: Naming, state: Mapping[str, Tensor], depth: int, **sizes: int) -> dict[str, Tensor]:
    """Return a state dict of this library under the other library's names.

    Args:
        naming: The names and axes in the other library.
        state: The state dict of this library.
        depth: Number of layers.
        **sizes: Sizes of axes that are joined here and separate in the other library.
    """
    found = {}
    for part in parts(naming.table, depth):
        values = [state[each] for each in part.own_names]
        value = torch.cat(values) if len(values) > 1 else values[0]
        if part.axes != part.own_axes:
            known = {axis: sizes[axis] for axis in re.findall(r"[a-z]", part.axes) if axis in sizes}
            value = rearrange(value, f"{part.own_axes} -> {part.axes}", **known)
        found[part.name] = value
    return found


def layers_in(table: Table, state: Mapping[str, Tensor]) -> int:
    """Return the number of layers: one more than the largest index of a layer in the names, at least 1."""
    starts = {re.escape(name.split("{}")[0]) for name, _, _ in table if "{}" in name}
    matches = (re.match(rf"{start}(\d+)\.", name) for start in starts for name in state)
    return max((int(each[1]) + 1 for each in matches if each), default=1)


def _refuse_other_names(name: str, naming: Naming, expected: Set[str], given: Set[str], known: Set[str]) -> None:
    """Raise WeightsError unless the given names are the expected ones."""
    missing, unexpected = sorted(expected - given), sorted(given - expected)
    if not missing and not unexpected:
        return
    lines = [f"{name} cannot take these weights:"]
    prefix = nested_prefix(known, given)
    if prefix:
        lines.append(f'  every name there begins with "{prefix}"; prefix="{prefix}" strips it')
        raise WeightsError("\n".join(lines))
    lines += [
        f"  the model there has {what}, which {naming.kind} has not"
        for pattern, what in naming.has.items()
        if any(re.search(pattern, each) for each in unexpected)
    ]
    lines += [
        f"  {reason}"
        for pattern, reason in naming.lacks.items()
        if any(re.search(pattern, each) for each in missing) and given & expected
    ]
    raise WeightsError("\n".join([*lines, *rows("missing", missing), *rows("unexpected", unexpected)]))


def _check_axes(name: str, part: Part, tensor: Tensor, sizes: dict[str, int]) -> None:
    """Check a tensor's shape against its axes and the sizes known so far, to which the sizes of new axes are added."""
    names = re.findall(r"[a-z]", part.axes)
    try:
        sizes.update(check(tensor, part.axes, **{axis: sizes[axis] for axis in names if axis in sizes}))
    except ShapeError as error:
        raise WeightsError(f"{name} cannot take {part.name}, which has other axes\n{error}") from None
