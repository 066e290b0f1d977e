"""The message for a state dict that does not fit a model: which names, and which axes by name.

The axis names of a weight, such as `(h k) m`, are taken from a trace of the model. An axis without a name is shown by
its size; if the model cannot be traced, only sizes are shown.
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from circuits import CircuitError

P = ParamSpec("P")
R = TypeVar("R")

MOST_ROWS = 12
"""The largest number of names of one kind that a message lists."""


class WeightsError(CircuitError, RuntimeError):
    """Raised when weights do not fit a model; also a RuntimeError, which torch's `load_state_dict` raises."""


class ArgumentsError(CircuitError, TypeError):
    """Raised when the arguments of a constructor do not fit its parameters; a TypeError too, as Python's own."""


def short_tracebacks(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the last line that the traceback of a CircuitError shows is the caller's."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CircuitError as error:
            error.hide_frames()
            raise

    return call


def pickled_hint(path: Path) -> str:
    """Return how a file of `torch.save` is read, for a message, if a file begins as one; "" if not."""
    with path.open("rb") as file:
        start = file.read(2)
    is_pickled = start in (b"PK", b"\x80\x02")
    read = "model.load_state_dict(torch.load(path, weights_only=True))"
    return f", but one of torch.save, which {read} may read" if is_pickled else ""


def explain(
    model: nn.Module, state: Mapping[str, Any], load: Callable[[Mapping[str, Any]], Any], *, strict: bool
) -> str:
    """Return why a model cannot load a state dict, one line for each name; "" if all names and shapes fit.

    Args:
        model: The model.
        state: The state dict.
        load: Loads a state dict into the model, and returns the missing and the unexpected names as found by torch.
        strict: Whether missing and unexpected names are errors; if not, they are not listed.
    """
    own = model.state_dict()
    wrong = [name for name, value in state.items() if name in own and not _same_shape(own[name], value)]
    missing, unexpected = _missing_and_unexpected(state, wrong, load) if strict else ([], [])
    axes = _axes(model) if wrong else {}
    lines = _prefixed(own, state) if strict else []
    if not lines:
        lines += rows("missing", missing)
        lines += rows("unexpected", [name + _suggestion(name, state, missing, own) for name in unexpected])
        lines += rows("axes", [f"{name}: {_both_shapes(axes.get(name, ''), own[name], state[name])}" for name in wrong])
    return "\n".join([f"{type(model).__name__} cannot take these weights:", *lines]) if lines else ""


def _missing_and_unexpected(
    state: Mapping[str, Any], wrong: list[str], load: Callable[[Mapping[str, Any]], Any]
) -> tuple[list[str], list[str]]:
    """Return the missing and the unexpected names, without those in `wrong`, whose shapes differ."""
    fitting: Any = OrderedDict((name, value) for name, value in state.items() if name not in wrong)
    if hasattr(state, "_metadata"):  # the versions of modules, which torch needs to upgrade an old state dict
        fitting._metadata = state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    missing, unexpected = load(fitting)
    return [name for name in missing if name not in wrong], unexpected


def rows(kind: str, names: list[str]) -> list[str]:
    """Return a line for each of the first `MOST_ROWS` names, and one with the number of further names."""
    more = [f"and {len(names) - MOST_ROWS} more"] if len(names) > MOST_ROWS else []
    return [f"  {kind:<12}{name}" for name in (*names[:MOST_ROWS], *more)]


def _suggestion(name: str, state: Mapping[str, Any], missing: list[str], own: Mapping[str, Any]) -> str:
    """Return text that suggests a missing name: one like `name`, of a tensor of the same shape; "" if there is none."""
    fitting = [each for each in missing if _same_shape(own[each], state[name])]
    return "".join([f" (perhaps {each})" for each in get_close_matches(name, fitting, 1, 0.8)])


def _both_shapes(axes: str, here: Tensor, there: Any) -> str:
    """Return the shapes in the model (`here`) and in the state dict (`there`) as text, with the names of the axes."""
    return f"{axes + ' is' if axes else 'it is'} {_shape(here)} here, {_shape(there)} there"


def _shape(value: Any) -> str:
    """Return the sizes of a tensor as text, or the type of anything else."""
    if not isinstance(value, Tensor):
        return f"not a tensor but {type(value).__name__}"
    return " ".join([f"{size}" for size in value.shape]) or "a single number"


def _same_shape(here: Tensor, there: Any) -> bool:
    """Return whether `there` is a tensor of the same shape."""
    return isinstance(there, Tensor) and here.shape == there.shape


def _axes(model: nn.Module) -> dict[str, str]:
    """Return the axes, as text, of each parameter and buffer of which at least one axis has a name."""
    from circuits import trace  # here, because it loads Dynamo and sympy

    try:
        boxes = [*trace(_on_meta(model)).walk()]
    except Exception:  # the error of a trace does not belong in a message about weights
        return {}
    values = [value for box in boxes for value in box.inputs if value.role in ("parameter", "buffer")]
    return {value.name: f"{value}" for value in reversed(values) if any(value.axes)}


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy with all tensors on meta, so that it can be traced even if only some of the model's are on meta."""
    tensors = [*model.parameters(), *model.buffers()]
    empty = [torch.empty_like(each, device="meta") for each in tensors]
    return copy.deepcopy(
        model,
        {
            id(each): nn.Parameter(new, each.requires_grad) if isinstance(each, nn.Parameter) else new
            for each, new in zip(tensors, empty, strict=True)
        },
    )


def without_prefix(state: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """Return a state dict without the prefix of its names, such as "module." of nn.DataParallel's.

    Args:
        state: The state dict, which is not changed.
        prefix: Text with which every name begins, dots and all, as in "_orig_mod.module.".

    Raises:
        WeightsError: if a name does not begin with the prefix.

    >>> without_prefix({"module.weight": torch.ones(1)}, "module.")
    OrderedDict([('weight', tensor([1.]))])
    """
    others = [each for each in state if not each.startswith(prefix)]
    if others:
        raise WeightsError("\n".join([f'these names do not begin with "{prefix}":', *rows("there", others)]))
    found: Any = OrderedDict((each.removeprefix(prefix), value) for each, value in state.items())
    versions = getattr(state, "_metadata", None)  # of modules, which torch needs to upgrade an old state dict
    if versions is not None:
        found._metadata = OrderedDict(
            (f"{each}.".removeprefix(prefix).removesuffix("."), value)
            for each, value in versions.items()
            if f"{each}.".startswith(prefix)
        )
    return found


def nested_prefix(known: Set[str], given: Set[str]) -> str:
    """Return the prefix, dots and all, with which all given names begin and without which more of them are known.

    >>> nested_prefix({"norm.weight", "head.weight"}, {"_orig_mod.module.norm.weight", "_orig_mod.module.head.weight"})
    '_orig_mod.module.'
    """
    words = min(given, default="").split(".")[:-1]
    prefixes = ["", *(".".join(words[: end + 1]) + "." for end in range(len(words)))]
    shared = [each for each in prefixes if all(name.startswith(each) for name in given)]
    return max(shared, key=lambda prefix: len(known & {name[len(prefix) :] for name in given}))


def _prefixed(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Return one line if the names on one side are those on the other side with a prefix; otherwise no line."""
    for longer, shorter, where in ((state, own, "there"), (own, state, "here")):
        prefix = nested_prefix(shorter.keys(), longer.keys())
        if prefix and {*longer} == {prefix + name for name in shorter}:
            strips = f'; models.without_prefix(state, "{prefix}") strips it' if where == "there" else ""
            return [f'  every name {where} begins with "{prefix}"; without it they are the same{strips}']
    return []
