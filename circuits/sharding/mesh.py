"""What the user chose: the mesh as sizes by name, and the mesh axes over which each named axis is split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
        between: The axis along which a mesh axis splits the tensors between the modules that it splits, by mesh axis.
    """

    mesh: Mapping[str, int]
    over: Mapping[str, tuple[str, ...]]
    whole: frozenset[str] = frozenset()
    between: Mapping[str, str] = field(default_factory=dict)

    def ranks(self, axis: str) -> int:
        """The number of parts of an axis."""
        return prod([self.mesh[each] for each in self.over[axis]])

    def axes_over(self, mesh_axis: str) -> list[str]:
        """The axes that are split over a mesh axis."""
        return [axis for axis, over in self.over.items() if mesh_axis in over]


def choice(mesh: Any, split: Mapping[str, Split], between: Mapping[str, str], known: Iterable[str]) -> Choice:
    """Return what the user chose, with the axes that have the name of a mesh axis.

    Args:
        mesh: A DeviceMesh with named axes, or the size of each mesh axis by name.
        split: The mesh axes of each axis.
        between: The mesh axis that splits an axis in the tensors between the modules that it splits.
        known: The names of axes in the diagram.

    Raises:
        CircuitError: The mesh has no names, a mesh axis is unknown, nothing is split, or `between` has an axis that is
            split everywhere, or two axes for one mesh axis.
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
    same = [name for name in known if name in sizes and name not in split and name not in between]
    over |= {name: (name,) for name in dict.fromkeys(same)}
    if not over:
        raise CircuitError(f"no axis is split: give one for a mesh axis, as in {{'b': {next(iter(sizes))!r}}}")
    whole = frozenset([axis for axis, names in split.items() if names is None])
    return Choice(sizes, over, whole, _between(between, sizes, over))


def _between(between: Mapping[str, str], sizes: Mapping[str, int], over: Mapping[str, Any]) -> dict[str, str]:
    """Return the axis of each mesh axis that is split between modules."""
    found: dict[str, str] = {}
    for axis, name in between.items():
        if name not in sizes:
            raise CircuitError(f"between: {axis}: the mesh has no axis {name!r}; it has {_sizes_text(sizes)}")
        if axis in over:
            raise CircuitError(
                f"between: {axis} is split over {' '.join(over[axis])} everywhere, and {name} cannot split it further"
            )
        if name in found:
            raise CircuitError(f"between: {name} can split one axis between modules, not {found[name]} and {axis}")
        if not any(name in names for names in over.values()):
            raise CircuitError(f"between: {name} splits no module: give it an axis that parameters have")
        found[name] = axis
    return found


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
