"""What of a model's call is recorded right: `survey` records it, runs the diagrams, and compares them with the model.

`circuits` promises for any `nn.Module` that a diagram computes what the model computes, or that an error says why it
does not, and that a recording changes nothing. `survey` returns, for each of the `WAYS` to use a recording, whether
this holds for one model: "" if it does, else the reason. A reason that starts with `WRONG` breaks the promise.
"""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from circuits import Diagram, backward, trace, track
from tests.conftest import assert_unchanged, equal_numbers, snapshot

WRONG = "WRONG: "
"""The start of a reason that says that a recording was wrong without an error, or changed something."""

WAYS = ("tracked", "tracked again", "traced", "again", "free batch", "differentiated")
"""The ways to use a recording: `track`; its diagram at these and at other numbers; `trace`; its diagram at these and at
other numbers; a trace with a free batch axis, run at other batch sizes; `backward`, compared with autograd."""


@dataclass(frozen=True)
class Input:
    """One argument of a call: its sizes without the batch axis, and what it holds.

    Attributes:
        sizes: The sizes after the batch axis.
        below: For indices: they are drawn from 1 to this number; 0: the tensor holds normal random numbers.
        name: The name of a keyword argument; empty: the argument is passed by position.
        batch: The position of the batch axis; None: there is none.
    """

    sizes: tuple[int, ...]
    below: int = 0
    name: str = ""
    batch: int | None = 0

    def make(self, batch: int) -> Tensor:
        """Return a random tensor."""
        sizes = list(self.sizes)
        if self.batch is not None:
            sizes.insert(self.batch, batch)
        return torch.randint(1, self.below, sizes) if self.below else torch.randn(sizes)

    @property
    def axes(self) -> str:
        """The axes as `trace` takes them, with the free batch axis `b`."""
        terms = [str(size) for size in self.sizes]
        if self.batch is not None:
            terms.insert(self.batch, "b")
        return " ".join(terms)


@dataclass(frozen=True)
class Entry:
    """A model of another library, and a call of it.

    Attributes:
        make: Returns the model.
        inputs: The tensor arguments.
        options: The other keyword arguments.
        light: Whether the model is small enough for tests that run with every change.
        differentiated: Whether the gradients are compared too.
        is_double: Whether they are computed in float64.
    """

    make: Callable[[], nn.Module]
    inputs: tuple[Input, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    light: bool = False
    differentiated: bool = True
    is_double: bool = True

    def arguments(self, seed: int, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of a call."""
        torch.manual_seed(seed)
        made = [(each.name, each.make(batch)) for each in self.inputs]
        return tuple([x for name, x in made if not name]), {name: x for name, x in made if name} | dict(self.options)


def survey(entry: Entry) -> dict[str, str]:
    """Return the reason for each of the `WAYS` that fails; "" for those that work, none for those that do not apply."""
    torch.manual_seed(0)
    model = entry.make().eval()
    found = {}
    found |= _recorded("tracked", _track, entry, model)
    found |= _recorded("traced", _trace, entry, model)
    found["free batch"] = _outcome(lambda: _free_batch(entry, model))
    if entry.differentiated:
        found["differentiated"] = _outcome(lambda: _differentiated(entry, model.double() if entry.is_double else model))
    return found


def _recorded(way: str, record: Callable[..., Diagram], entry: Entry, model: nn.Module) -> dict[str, str]:
    """Return the outcome of a recording that must change nothing, and that of runs of its diagram."""
    made: list[Diagram] = []
    outcome = _outcome(lambda: made.append(_unchanged(entry, model, record)))
    exactly = way == "tracked"
    again = "tracked again" if exactly else "again"
    if not made:
        return {way: outcome, again: f"not {way}"}
    wrong = _outcome(lambda: _check_parameters(made[0], model))
    return {way: wrong, again: _outcome(lambda: [_compare(made[0], entry, model, seed, 2, exactly) for seed in (1, 2)])}


def _outcome(check: Callable[[], Any]) -> str:
    """Return "" if a check passes, else the first lines of its error; an AssertionError is `WRONG`."""
    try:
        check()
    except AssertionError as error:
        return f"{WRONG}{error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _unchanged(entry: Entry, model: nn.Module, record: Callable[..., Diagram]) -> Diagram:
    """Return the diagram of a call; assert that the model, arguments and random numbers are as without a recorder."""
    args, kwargs = entry.arguments(1, 2)
    kept = copy.deepcopy((args, kwargs))
    own = _changed_by_itself(entry, model) if record is _track else set()
    before, numbers = snapshot(model), random.getstate()
    objects = _objects(model)
    diagram = record(entry, model, args, kwargs)
    assert random.getstate() == numbers, "Python's random numbers changed"
    changed = {name for name, value in _objects(model).items() if objects.get(name) != value}
    assert changed <= own, f"{sorted(changed - own)[:3]} changed"
    assert_unchanged(before, snapshot(model))
    _equal(kept, (args, kwargs), "the arguments changed")
    return diagram


def _changed_by_itself(entry: Entry, model: nn.Module) -> set[str]:
    """Return the names of the attributes that a call of the model rebinds; the model is called twice."""
    args, kwargs = entry.arguments(1, 2)
    with torch.no_grad(), torch.random.fork_rng():
        model(*args, **kwargs)
        before = _objects(model)
        model(*args, **kwargs)
    return {name for name, value in _objects(model).items() if before.get(name) != value}


def _objects(model: nn.Module) -> dict[str, int]:
    """Return the identity of each attribute of each module, so that one that is rebound is noticed."""
    return {f"{path}.{name}": id(value) for path, each in model.named_modules() for name, value in vars(each).items()}


def _trace(entry: Entry, model: nn.Module, args: Any, kwargs: Any) -> Diagram:
    with torch.no_grad():
        return trace(model, *args, **kwargs)


def _track(entry: Entry, model: nn.Module, args: Any, kwargs: Any) -> Diagram:
    """Return the diagram of a tracked run, whose result must be that of a plain run."""
    state = torch.get_rng_state()
    with torch.no_grad():
        torch.manual_seed(3)
        plain = model(*args, **kwargs)
        torch.manual_seed(3)
        with track(model, to=None) as seen:
            tracked = model(*args, **kwargs)
    torch.set_rng_state(state)
    _equal(plain, tracked, "the result of the tracked run differs")
    return seen.diagram


def _check_parameters(diagram: Diagram, model: nn.Module) -> None:
    """Assert that the parameters of a diagram have the names and sizes of `named_parameters`."""
    wanted = {name: tuple(each.shape) for name, each in model.named_parameters()}
    found = {each.name: each.sizes for each in diagram.parameters}
    assert found == wanted, f"parameters differ: {sorted(map(str, found.items() ^ wanted.items()))[:6]}"
    assert len(diagram.parameters) == len(wanted), "a parameter is counted twice"


def _compare(
    run: Callable[..., Any], entry: Entry, model: nn.Module, seed: int, batch: int, exactly: bool = False
) -> None:
    """Assert that a diagram returns what the model returns.

    The diagram of a tracked run computes the same bits. That of a trace computes what the Python code says, for which
    torch has fused kernels (of an encoder layer in eval mode) that round differently.
    """
    args, kwargs = entry.arguments(seed, batch)
    with torch.no_grad():
        torch.manual_seed(3)
        wanted = model(*args, **kwargs)
        torch.manual_seed(3)
        found = run(*args, **kwargs)
    _equal(wanted, found, f"the diagram differs at seed {seed} and batch size {batch}", exactly=exactly)


def _free_batch(entry: Entry, model: nn.Module) -> None:
    """Assert that a trace with a free batch axis returns what the model returns at three batch sizes."""
    names = [each.name for each in entry.inputs]
    indices = [bool(each.below) for each in entry.inputs]

    def call(*tensors: Tensor) -> Any:
        """Call the model on tensors that `trace` made, which hold floating-point numbers."""
        whole = [x.long() if index else x for x, index in zip(tensors, indices, strict=True)]
        args = [x for x, name in zip(whole, names, strict=True) if not name]
        return model(*args, **{name: x for x, name in zip(whole, names, strict=True) if name}, **entry.options)

    with torch.no_grad():
        diagram = trace(call, axes=", ".join([each.axes for each in entry.inputs]))
    fixed = [f"{each}" for each in diagram.fixed]
    if fixed:
        raise ValueError(f"the batch axis is fixed: {fixed[0]}")

    def run(*args: Any, **kwargs: Any) -> Any:
        given = iter(args)
        return diagram(*[(kwargs[name] if name else next(given)).to(torch.float32) for name in names])

    for batch in (2, 3, 5):
        _compare(run, entry, model, batch, batch)


def _differentiated(entry: Entry, model: nn.Module) -> None:
    """Assert that `backward` returns autograd's gradients, with random cotangents, by the names of the parameters.

    They agree to 1e-8, because kernels of torch have constants of float32 (the sixth of hardsigmoid), or to 1e-4 if the
    model computes something in float32 inside.
    """
    args, kwargs = entry.arguments(1, 2)
    if entry.is_double:
        args, kwargs = _double((args, kwargs))
    joint = backward(model, *args, **kwargs)
    leaves = [x.requires_grad_() for x in _tensors((args, kwargs)) if x.is_floating_point()]
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    torch.manual_seed(3)
    outputs = [x for x in _tensors(model(*args, **kwargs)) if x.is_floating_point()]
    cotangents = [torch.randn_like(x) for x in outputs]
    used = [(x, weight) for x, weight in zip(outputs, cotangents, strict=True) if x.requires_grad]
    wanted = torch.autograd.grad(
        [x for x, _ in used], [*leaves, *parameters.values()], [weight for _, weight in used],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    with torch.no_grad():
        torch.manual_seed(3)
        names = [f"cotangent_{place}" for place in range(1, len(outputs) + 1)] if len(outputs) > 1 else ["cotangent"]
        found = joint(*args, **kwargs, **dict(zip(names, cotangents, strict=True)))
    values = list(found.values())[: len(leaves)] + [found[name] for name in parameters]
    assert set(parameters) <= set(found), "gradients of other names"
    rough = any(value.dtype is torch.float32 for box in joint.walk() for value in box.outputs)
    for name, mine, theirs in zip([*["input"] * len(leaves), *parameters], values, wanted, strict=True):
        scale = float(theirs.nan_to_num().abs().max()) + 1 if mine.numel() else 1.0
        error = float((mine - theirs).nan_to_num().abs().max()) / scale if mine.numel() else 0.0
        assert torch.equal(mine.isnan(), theirs.isnan()), f"the gradient of {name} is nan in other places"
        assert error <= (1e-4 if rough else 1e-8), f"the gradient of {name} is off by {error:.1e}"


def _double(value: Any) -> Any:
    return _pytree.tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, value)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _equal(wanted: Any, found: Any, message: str, exactly: bool = True) -> None:
    """Assert that two results have the same types and the same tensors: bit for bit, or up to rounding.

    Up to rounding is what `torch.testing.assert_close` allows for float32, in which the models compute.
    """
    ones, spec = _pytree.tree_flatten(wanted)
    others, other_spec = _pytree.tree_flatten(found)
    assert spec == other_spec, f"{message}: {spec} and {other_spec}"
    for one, other in zip(ones, others, strict=True):
        assert type(one) is type(other), f"{message}: {type(one)} and {type(other)}"
        if isinstance(one, Tensor):
            assert (one.shape, one.dtype) == (other.shape, other.dtype), f"{message}: {one.shape} and {other.shape}"
            is_near = not exactly and torch.allclose(one, other, rtol=1.3e-6, atol=1e-5, equal_nan=True)
            assert equal_numbers(one, other) or is_near, f"{message} by {_distance(one, other)}"


def _distance(one: Tensor, other: Tensor) -> str:
    return f"{(one.double() - other.double()).abs().max().item():.1e} of {one.double().abs().max().item():.1e}"
