"""What the user chose: the mesh as sizes by name, and the mesh axes over which each named axis is split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from circuits.errors import CircuitError

Split = str | Sequence[str] | None
"""The mesh axis, or the mesh axes, over which an axis is split; None if it is whole on every rank."""

_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class Choice:
    """A mesh, and the mesh axes over which axes are split.

    Attributes:
        mesh: The size of each mesh axis, by name, in the order of the mesh.
        over: The mesh axes of each axis that is split, by the name of the axis.
        whole: The axes that are to be whole on every rank, as the user said.
    """

    mesh: Mapping[str, int]
    over: Mapping[str, tuple[str, ...]]
    whole: frozenset[str] = frozenset()

    def ranks(self, axis: str) -> int:
        """The number of parts of an axis."""
        return prod([self.mesh[each] for each in self.over[axis]])

    def axes_over(self, mesh_axis: str) -> list[str]:
        """The axes that are split over a mesh axis."""
        return [axis for axis, over in self.over.items() if mesh_axis in over]


def choice(mesh: Any, split: Mapping[str, Split], known: Iterable[str]) -> Choice:
    """Return what the user chose, with the axes that have the name of a mesh axis.

    Args:
        mesh: A DeviceMesh with named axes, or the size of each mesh axis by name.
        split: The mesh axes of each axis.
        known: The names of axes in the diagram.

    Raises:
        CircuitError: The mesh has no names, a mesh axis is unknown, or nothing is split.
    """
    sizes = mesh_sizes(mesh)
    over: dict[str, tuple[str, ...]] = {}
    for axis, names in split.items():
        found = () if names is None else (names,) if isinstance(names, str) else tuple(names)
        for name in found:
            if name not in sizes:
                raise CircuitError(f"{axis}: the mesh has no axis {name!r}; it has {_sizes_text(sizes)}")
        if len(set(found)) < len(found):
            raise CircuitError(f"{axis}: {' '.join(found)} names a mesh axis twice")
        if found:
            over[axis] = tuple(sorted(found, key=list(sizes).index))
    same = [name for name in known if name in sizes and name not in split]
    over |= {name: (name,) for name in dict.fromkeys(same)}
    if not over:
        raise CircuitError(f"no axis is split: give one for a mesh axis, as in {{'b': {next(iter(sizes))!r}}}")
    return Choice(sizes, over, frozenset([axis for axis, names in split.items() if names is None]))


def mesh_sizes(mesh: Any) -> dict[str, int]:
    """Return the size of each mesh axis by name.

    Raises:
        CircuitError: The mesh has no names, or a size is no positive number.
    """
    if isinstance(mesh, Mapping):
        for name, size in mesh.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise CircuitError(f"mesh axis {name}: its size has to be a positive number, not {size!r}")
        if mesh:
            return dict(mesh)
    names, shape = getattr(mesh, "mesh_dim_names", None), getattr(mesh, "shape", ())
    if not names:
        raise CircuitError(
            "a mesh whose axes have names is needed: init_device_mesh('cpu', (2,), mesh_dim_names=('tensor',)), "
            "or sizes by name, {'tensor': 2}"
        )
    return dict(zip(names, shape, strict=True))


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join([f"{name} ({size})" for name, size in sizes.items()])


def factors(label: str | None) -> tuple[str, ...]:
    """Return the axes that one axis of a tensor is made of, the slowest first; none if they are not plain names.

    >>> factors("(h k)"), factors("m"), factors("h/2"), factors(None)
    (('h', 'k'), ('m',), (), ())
    """
    if label is None:
        return ()
    words = label[1:-1].split() if label.startswith("(") else [label]
    return tuple(words) if all(_NAME.fullmatch(word) or word.isdigit() for word in words) else ()


__all__ = ["Choice", "Split", "choice", "factors", "mesh_sizes"]
