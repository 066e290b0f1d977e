"""What a circuit declares: its signature, and how the tensors of a call stand in it.

Everything a decoration can get wrong is found here, once, before any call: a signature with more tensors than the
function has parameters, an option that names nothing, arithmetic whose axis can never be known. What a call does with
the declaration is `checking`'s business.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch

from circuits.errors import SignatureError, point
from circuits.signature import Axes, Axis, Derived, Group, Rest, Signature, Term, parse_axes, places, show_axes, unknown


@dataclass(eq=False)
class Body:
    """What changes about a circuit: a kernel and a backward circuit may be registered after it is declared."""

    kernel: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Slot:
    """One tensor of a call: the name its user knows it by, the axes it should have, and those axes as text."""

    name: str
    axes: Axes
    text: str
    role: Literal["input", "optional", "output"] = "input"
    dtype: torch.dtype | None = None


@dataclass(frozen=True, eq=False)
class Circuit:
    """The declaration of one circuit, as `f.circuit` of a decorated function `f`.

    `title` is how messages begin. `parameters` are all that a call may fill by position, `self` left out; `inputs`
    those that carry the signature's tensors, `star` the parameter `*tensors` if that carries some. `owner` is the
    parameter that holds the module (`"self"`), or `""` for a plain function.
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
    parameters: tuple[str, ...]
    definition: Callable[..., Any]
    owner: str
    star: str
    body: Body
    slots: tuple[Slot, ...]
    results: tuple[Slot, ...]

    @property
    def has_kernel(self) -> bool:
        """Whether a faster function stands in for the definition."""
        return self.body.kernel is not None


Said = tuple[tuple[str, Any], ...]
"""A mapping as its items, so that it can be compared and hashed."""


@dataclass(frozen=True)
class Options:
    """What may be said beside the signature, as it was said."""

    optional: Said = ()
    fixed: Said = ()
    dtypes: Said = ()
    multiples: Said = ()

    @classmethod
    def of(
        cls,
        optional: Mapping[str, str] | None,
        fixed: str | Mapping[str, str | int] | None,
        dtypes: Mapping[str, torch.dtype] | None,
        multiples: Mapping[str, int] | None,
    ) -> Self:
        """The arguments of `circuit`; `fixed="m k"` is short for `fixed={"m": "m", "k": "k"}`.

        >>> Options.of(None, "m k", None, None).fixed
        (('m', 'm'), ('k', 'k'))
        """
        if isinstance(fixed, str):
            fixed = {axis: axis for axis in fixed.replace(",", " ").split()}
        given = (optional, fixed, dtypes, multiples)
        return cls(*(tuple(said.items()) if said else () for said in given))


def declare(function: Callable[..., Any], text: str, options: Options, name: str, where: str) -> Circuit:
    """The circuit that `text` makes of `function`; raises SignatureError where they do not fit."""
    signature = Signature.parse(text)
    parameters = list(parameters_of(function))
    owner = parameters.pop(0).name if parameters and parameters[0].name in ("self", "cls") else ""
    optional = {each: _read(each, axes) for each, axes in options.optional}
    inputs = _inputs(name, signature, parameters, optional)
    dtypes = dict(options.dtypes)
    _know("dtypes", dtypes, (*inputs, *optional), f"a tensor of {name}")
    fixed = _fixed(options.fixed, owner, name)
    names = dict.fromkeys(
        (*signature.names, *(each for axes in optional.values() for term in axes for each in term.names))
    )
    _know("fixed", fixed, tuple(names), f"an axis of {signature}")
    multiples = dict(options.multiples)
    _know("multiples", multiples, tuple(names), f"an axis of {signature}")
    _suit("fixed", fixed, lambda by: isinstance(by, str) or _counts(by), "an attribute's name or a size")
    _suit("dtypes", dtypes, lambda dtype: isinstance(dtype, torch.dtype), "a torch.dtype")
    _suit("multiples", multiples, lambda of: _counts(of) and of > 0, "an int above 0")
    _settle(signature, optional, fixed)
    _lead(signature, optional)
    slots = [
        Slot(each, axes, show_axes(axes), "input", dtypes.get(each))
        for each, axes in zip(inputs, signature.inputs, strict=False)
    ]
    slots += [Slot(each, axes, show_axes(axes), "optional", dtypes.get(each)) for each, axes in optional.items()]
    several = len(signature.outputs) > 1
    results = [
        Slot(f"output {i + 1}" if several else "output", axes, show_axes(axes), "output")
        for i, axes in enumerate(signature.outputs)
    ]
    return Circuit(
        name=name,
        title=f"{name}: {signature}",
        where=where,
        signature=signature,
        inputs=inputs,
        optional=optional,
        fixed=fixed,
        dtypes=dtypes,
        multiples=multiples,
        parameters=tuple(each.name for each in parameters if each.kind in _BY_POSITION),
        definition=function,
        owner=owner,
        star=next((each.partition("[")[0] for each in inputs if "[" in each), ""),
        body=Body(),
        slots=tuple(slots),
        results=tuple(results),
    )


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """A function's parameters; what was written in C and does not say takes anything."""
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        anything = inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)
        return anything, inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)


def _inputs(
    name: str, signature: Signature, parameters: list[inspect.Parameter], optional: Mapping[str, Axes]
) -> tuple[str, ...]:
    """The parameters that carry the signature's tensors; `tensors[0]` is the first of `*tensors`."""
    named = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    _know("optional", optional, tuple(named), f"a parameter of {name}")
    places = [each.name for each in parameters if each.kind in _BY_POSITION and each.name not in optional]
    more = next((each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), None)
    wanted = len(signature.inputs)
    if not parameters and signature.inputs == ((),):
        return ()
    if len(places) >= wanted:
        return tuple(places[:wanted])
    if more is None:
        tensors = "1 tensor" if wanted == 1 else f"{wanted} tensors"
        takes = f"only {', '.join(places)}" if places else "none"
        raise SignatureError(f"{signature} takes {tensors}, but of the parameters of {name} {takes} can carry one")
    return (*places, *(f"{more}[{i}]" for i in range(wanted - len(places))))


def _read(name: str, axes: str) -> Axes:
    """The axes of an optional tensor."""
    try:
        return parse_axes(axes)
    except SignatureError as error:
        raise SignatureError(f"optional: in the axes of {name!r}, {error}") from None


def _know(option: str, said: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    """Refuse an option that speaks of something unknown."""
    for each in said:
        if each not in names:
            raise SignatureError(f"{option}: {each!r} is not {what}; there are {', '.join(names) or 'none'}")


def _suit(option: str, said: Mapping[str, Any], suits: Callable[[Any], bool], what: str) -> None:
    """Refuse an option whose value is of the wrong kind."""
    for each, value in said.items():
        if not suits(value):
            raise SignatureError(f"{option}={{{each!r}: {value!r}}}: {value!r} is not {what}")


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fixed(said: Said, owner: str, name: str) -> dict[str, str | int]:
    """Each fixed axis with the attribute or the number that fixes it."""
    for axis, by in said:
        if isinstance(by, str) and not owner:
            what = f"fixed: the size of {axis} would be self.{by}, but {name} is no method; give the number itself"
            raise SignatureError(what)
    return dict(said)


def _settle(signature: Signature, optional: Mapping[str, Axes], fixed: Mapping[str, Any]) -> None:
    """Refuse arithmetic whose axis no tensor can ever tell."""
    stated = dict.fromkeys((*fixed, *(name for axes in optional.values() for term in axes for name in _plain(term))))
    terms = [term for axes in signature.inputs + signature.outputs for term in axes]
    stated |= dict.fromkeys(name for term in terms for name in _plain(term))
    known = dict.fromkeys((*fixed, *(term.name for term in terms if isinstance(term, Axis))))
    known |= dict.fromkeys(name for axes in optional.values() for term in axes for name in term.names)
    still = [term for term in terms if unknown(term, known)]
    before = -1
    while before != len(still):
        before = len(still)
        for term in still:
            if len(unknown(term, known)) == 1:
                known |= dict.fromkeys(unknown(term, known))
        still = [term for term in still if unknown(term, known)]
    for _, _, term, span in places(signature):
        for derived in _derived(term):
            lost = [name for name in derived.names if name not in stated] or unknown(derived, known)
            if lost:
                needed = " and ".join(dict.fromkeys(lost))
                what = f"{derived} needs the size of {needed}, which the rest of the signature does not tell"
                raise SignatureError(f"{what}\n{point(str(signature), span)}")


def _lead(signature: Signature, optional: Mapping[str, Axes]) -> None:
    """Refuse `...` on an optional tensor when nothing that goes in has one to broadcast to."""
    if not any(has_rest(axes) for axes in signature.inputs):
        for name, axes in optional.items():
            if has_rest(axes):
                what = f"optional: the '...' of {name!r} would broadcast to that of an input, but none has one"
                raise SignatureError(f"{what}\n{point(str(signature))}")


def _plain(term: Term) -> tuple[str, ...]:
    """The names that stand for themselves in a term."""
    if isinstance(term, Group):
        return tuple(part.name for part in term.terms if isinstance(part, Axis))
    return term.names if isinstance(term, Axis) else ()


def _derived(term: Term) -> tuple[Derived, ...]:
    """The arithmetic in a term."""
    if isinstance(term, Group):
        return tuple(part for part in term.terms if isinstance(part, Derived))
    return (term,) if isinstance(term, Derived) else ()


def has_rest(axes: Axes) -> bool:
    """Whether a tensor may have more axes, in front, than are named."""
    return len(axes) > 0 and isinstance(axes[0], Rest)
