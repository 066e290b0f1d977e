"""The declaration of a circuit as data: its signature, and which parameters of the function take its tensors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from circuits.errors import SignatureError
from circuits.signature import Axes, Signature, normalized, plain_size

Sends = Callable[..., Iterable[tuple[str, str, str, Sequence[int], str]]]
"""What ranks send in a kernel: called with `ranks` and `dtype`, and with the arguments of the call that are no tensors.

Each communication is given by how the tensors are placed before and after it (see `circuits.sharding.moves`), by
"forward" or "backward", by how often a rank sends its part of each input and output, and by the reason in words.
"""


@dataclass(frozen=True)
class Across:
    """The axes that a kernel reads across where its inputs are split along all of them, and what its ranks then send.

    Attributes:
        axes: Names of the signature, one in each input and output.
        sends: What is sent.
    """

    axes: tuple[str, ...]
    sends: Sends

    def dim(self, axes: Axes) -> int:
        """Return where one of the axes is in an input or output, counted from the right: -1 is the last."""
        return next(place for place, term in enumerate(axes, -len(axes)) if set(term.names) & set(self.axes))


@dataclass(eq=False)
class Body:
    """The mutable part of a circuit: the kernel and the backward circuit, which may be registered after declaration."""

    kernel: Callable[..., Any] | None = None
    across: Across | None = None
    backward: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Slot:
    """One tensor of a call: its name in messages, the axes and the dtype that it must have, and its axes as text."""

    name: str
    axes: Axes
    text: str
    role: Literal["input", "optional", "output"] = "input"
    dtype: torch.dtype | None = None


@dataclass(frozen=True, eq=False)
class Circuit:
    """The declaration of a circuit: `f.circuit` of a decorated function `f`, or `find_circuit(module)`.

    Attributes:
        name: The qualified name of the function.
        title: The name and the signature: the beginning of messages.
        where: The file and the line of the declaration, as `file:line`.
        signature: The axes of the inputs and outputs.
        inputs: The parameters that take the signature's tensors; `tensors[0]` is the first of `*tensors`.
        optional: The axes of each optional tensor, by the name of its parameter.
        fixed: For each fixed axis, the attribute that holds its size, or the size itself.
        dtypes: The dtype that a tensor must have, by the name of its parameter.
        multiples: For each axis whose size must be a multiple of a number, that number.
        hints: What the message adds where a tensor does not fit, by the name of its parameter.
        parameters: All parameters that a call can pass by position, `self` left out.
        definition: The function that was decorated.
        owner: The name of the first parameter of a method, such as `"self"` or `"cls"`, or `""` for a plain function.
        star: The name of the parameter `*tensors` if it takes some of the inputs, else `""`.
        body: The kernel and the backward circuit, if registered.
        slots: The inputs, then the optional tensors.
        results: The outputs.
    """

    name: str
    title: str
    where: str
    signature: Signature
    inputs: tuple[str, ...]
    optional: Mapping[str, Axes]
    fixed: Mapping[str, str | int]
    dtypes: Mapping[str, torch.dtype]
    multiples: Mapping[str, int]
    hints: Mapping[str, str]
    parameters: tuple[str, ...]
    definition: Callable[..., Any]
    owner: str
    star: str
    body: Body
    slots: tuple[Slot, ...]
    results: tuple[Slot, ...]

    @property
    def has_kernel(self) -> bool:
        """Whether a kernel, a faster function that runs instead of the definition, is registered."""
        return self.body.kernel is not None


Items = tuple[tuple[str, Any], ...]
"""The items of a mapping, which can be compared and hashed."""


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `circuit`, each mapping as a tuple of its items, so that they can be hashed."""

    optional: Items = ()
    fixed: Items = ()
    dtypes: Items = ()
    multiples: Items = ()
    hints: Items = ()

    @classmethod
    def of(
        cls,
        optional: Mapping[str, str] | None,
        fixed: str | Mapping[str, str | int] | None,
        dtypes: Mapping[str, torch.dtype] | None,
        multiples: Mapping[str, int] | None,
        hints: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the options for the arguments of `circuit`; `fixed="m k"` means `fixed={"m": "m", "k": "k"}`.

        Raises:
            SignatureError: If one is not a mapping from names.

        >>> Options.of(None, "m k", None, None).fixed
        (('m', 'm'), ('k', 'k'))
        """
        if isinstance(fixed, str):
            fixed = {axis: normalized(axis) for axis in fixed.replace(",", " ").split()}
        given = {"optional": optional, "fixed": fixed, "dtypes": dtypes, "multiples": multiples, "hints": hints}
        return cls(**{name: _items(name, each) for name, each in given.items()})


def _items(option: str, given: Any) -> Items:
    """Return the items of a mapping from names of axes or parameters; SignatureError for anything else."""
    if given is None:
        return ()
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        names = "a parameter" if option in ("optional", "dtypes", "hints") else "an axis"
        raise SignatureError(f"{option}={given!r:.60}: expected a mapping from the name of {names}")
    return tuple([(normalized(name), plain_size(by)) for name, by in given.items()])
