"""What to say where a state dict does not fit a model: which names, and which axes by name.

The axis names of a weight are those that a trace of the model gives it, `(h k) m`; an axis that nobody named shows its
size, and where the model cannot be traced there are sizes alone.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from circuits import CircuitError, trace

MOST = 12
"""No more than so many names of a kind are listed."""


class WeightsError(CircuitError, RuntimeError):
    """The weights do not fit the model. It is a RuntimeError too, which is what `load_state_dict` raises."""


def explain(
    model: nn.Module, state: Mapping[str, Any], load: Callable[[Mapping[str, Any]], Any], *, strict: bool
) -> str:
    """All that keeps a model from taking a state dict, one line each; nothing if it is not the names and the axes.

    `load` puts a state dict into the model and returns which names were missing and unexpected, as torch counts them.
    Where it was not `strict` that these be none, they are not told.
    """
    own = model.state_dict()
    wrong = [name for name, value in state.items() if name in own and not _same_shape(own[name], value)]
    missing, unexpected = _strangers(state, wrong, load) if strict else ([], [])
    axes = _axes(model) if wrong else {}
    lines = _prefixed(own, state) if strict else []
    if not lines:
        lines += _rows("missing", missing)
        lines += _rows("unexpected", [name + _nearest(name, state, missing, own) for name in unexpected])
        lines += _rows("axes", [f"{name}: {_sizes(axes.get(name, ''), own[name], state[name])}" for name in wrong])
    return "\n".join([f"{type(model).__name__} cannot take these weights:", *lines]) if lines else ""


def _strangers(
    state: Mapping[str, Any], wrong: list[str], load: Callable[[Mapping[str, Any]], Any]
) -> tuple[list[str], list[str]]:
    """The names that are missing, and those that are unexpected, beside the ones with other axes."""
    fitting: Any = OrderedDict((name, value) for name, value in state.items() if name not in wrong)
    if hasattr(state, "_metadata"):  # the versions of modules, by which torch knows what an old state dict lacks
        fitting._metadata = state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    missing, unexpected = load(fitting)
    return [name for name in missing if name not in wrong], unexpected


def _rows(kind: str, names: list[str]) -> list[str]:
    """A line for each name, and one for those that are too many."""
    more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    return [f"  {kind:<12}{name}" for name in (*names[:MOST], *more)]


def _nearest(name: str, state: Mapping[str, Any], missing: list[str], own: Mapping[str, Any]) -> str:
    """The missing name that was perhaps meant: much like this one, of a tensor as large."""
    fitting = [each for each in missing if _same_shape(own[each], state[name])]
    return "".join([f" (perhaps {each})" for each in get_close_matches(name, fitting, 1, 0.8)])


def _sizes(axes: str, here: Tensor, there: Any) -> str:
    """Both shapes, under the names of ours."""
    return f"{axes + ' is' if axes else 'it is'} {_shape(here)} here, {_shape(there)} there"


def _shape(value: Any) -> str:
    """The sizes of a tensor; of anything else, what it is."""
    if not isinstance(value, Tensor):
        return f"no tensor but {type(value).__name__}"
    return " ".join([f"{size}" for size in value.shape]) or "a single number"


def _same_shape(here: Tensor, there: Any) -> bool:
    return isinstance(there, Tensor) and here.shape == there.shape


def _axes(model: nn.Module) -> dict[str, str]:
    """The axes of each parameter and buffer, as text, where at least one of them has a name."""
    try:
        boxes = [*trace(_on_meta(model)).walk()]
    except Exception:  # what a model does to be untraceable is not what the caller asked about
        return {}
    values = [value for box in boxes for value in box.inputs if value.role in ("parameter", "buffer")]
    return {value.name: f"{value}" for value in reversed(values) if any(value.axes)}


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without numbers, which can be traced where half of the model is on meta already."""
    tensors = [*model.parameters(), *model.buffers()]
    empty = [torch.empty_like(each, device="meta") for each in tensors]
    return copy.deepcopy(
        model,
        {
            id(each): nn.Parameter(new, each.requires_grad) if isinstance(each, nn.Parameter) else new
            for each, new in zip(tensors, empty, strict=True)
        },
    )


def _prefixed(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """A line if all that keeps the names from being the same is one prefix, here or there."""
    for longer, shorter, where in ((state, own, "there"), (own, state, "here")):
        prefix = next(iter(longer), "").partition(".")[0] + "."
        if {*longer} == {prefix + name for name in shorter}:
            return [f'  every name {where} begins with "{prefix}"; without it they are the same']
    return []
