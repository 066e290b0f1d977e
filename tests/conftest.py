# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Fixtures of all tests: golden texts, a seed for each test, one torch thread for each worker, and `agree`.

`agree` records a call and compares the diagram with a run of the same code without a recorder.
"""

import copy
import dataclasses
import functools
import gc
import io
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch._dynamo import eval_frame
from torch._functorch import apis
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import _get_current_function_mode_stack

from circuits import Diagram, Drawing, trace, track
from tests.leftovers import Leftovers
from tests.process_state import unchanged_process
from tests.svg_differences import report

_CACHE = type(functools.cache(len))
GOLDEN = Path(__file__).parent / "golden"

# No deadline: two cores are shared by several workers, and the first call of a compiled function is slow.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files; read the diff afterwards")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `every(n, m)` leaves out: all but the first of each n cases as slow, and of all that are slow, by this
    or by a mark of their own, all but the first of each m as `survey`. Smoke tests always run.
    """
    counts: Counter[tuple[str, str, bool]] = Counter()
    for item in items:
        marker = item.get_closest_marker("every")
        if marker is None or item.get_closest_marker("smoke"):
            continue
        first, of_slow = (*marker.args, 1)[:2]
        key = item.parent.nodeid if item.parent else "", getattr(item, "originalname", item.name)
        if not item.get_closest_marker("slow"):
            counts[*key, False] += 1
            if (counts[*key, False] - 1) % first == 0:
                continue
            item.add_marker(pytest.mark.slow)
        counts[*key, True] += 1
        if (counts[*key, True] - 1) % of_slow:
            item.add_marker(pytest.mark.survey)


# torch.manual_seed also notes a seed for each kind of device, with a traceback, which takes longer than most tests.
_seed = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed the random number generators, so that a test does not depend on those before it."""
    random.seed(0)
    _seed(0)


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Fail a test after which the process is not as it was before."""
    with unchanged_process():
        yield


@pytest.fixture(scope="session")
def leftovers() -> Iterator[Leftovers]:
    """Fail the last test of a worker if a recorder, or what it made, is still alive; the message names the module.

    Garbage is collected here only: a collection takes a second or more, which every module would pay. What is alive
    when the first test begins is left out of all collections, so that those of Python and of single tests are quick.
    """
    gc.collect()
    gc.freeze()
    found = Leftovers()
    yield found
    found.fail()


@pytest.fixture(autouse=True, scope="module")
def notes(request: pytest.FixtureRequest, leftovers: Leftovers) -> Iterator[None]:
    """Note what a module of tests leaves alive, unless it says in MAY_LEAVE why it may, and empty its own caches.

    What they hold would make all later collections of garbage slower.
    """
    yield
    name = request.node.obj.__name__
    for each in vars(request.node.obj).values() if name.startswith("tests.") else ():
        if isinstance(each, _CACHE) and each.__module__ == name:
            each.cache_clear()
    leftovers.note("" if getattr(request.node.obj, "MAY_LEAVE", "") else request.node.nodeid)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a function that compares text with `tests/golden/<name>`; a missing file fails unless --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {path}; run pytest --update-golden and read it"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture
def golden_drawing(request: pytest.FixtureRequest) -> Callable[[str, Drawing], None]:
    """Return a function that compares a drawing with `tests/golden/drawings/<name>.svg` and `.tex`, byte for byte.

    A mismatch names the elements that are missing, new, moved or changed. A missing file fails unless --update-golden.
    """

    def check(name: str, drawing: Drawing) -> None:
        for suffix, text in ((".svg", drawing.svg), (".tex", drawing.tikz)):
            path = GOLDEN / "drawings" / f"{name}{suffix}"
            if request.config.getoption("--update-golden"):
                path.write_bytes(text.encode())
            if not path.exists():
                pytest.fail(f"no golden file {path}; run pytest --update-golden and look at it", pytrace=False)
            known = path.read_bytes().decode()
            if text != known:
                pytest.fail(f"{path.name} has changed:\n{report(known, text, suffix)}", pytrace=False)

    return check


def leaves(value: Any) -> list[Any]:
    """Return the tensors and plain values in nested tuples, lists, dicts and dataclasses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [leaf for field in dataclasses.fields(value) for leaf in leaves(getattr(value, field.name))]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def equal_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors of one shape are equal, without any tolerance; NaN equals NaN, and nothing else."""
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def assert_same(one: Any, other: Any) -> None:
    """Assert that two results are equal, number by number."""
    ones, others = leaves(one), leaves(other)
    assert len(ones) == len(others)
    for a, b in zip(ones, others, strict=True):
        if isinstance(a, torch.Tensor):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.is_meta or equal_numbers(a, b)
        else:
            assert a == b


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all state of a model and of torch that a recording must not change."""
    state = model.state_dict(keep_vars=True)
    modules = list(model.modules())
    return {
        "state": {name: value.detach().clone() for name, value in state.items() if isinstance(value, torch.Tensor)},
        "identity": {name: id(value) for name, value in state.items()},
        "modes": [module.training for module in modules],
        "hooks": [
            (list(each._forward_hooks), list(each._forward_pre_hooks), list(each._backward_hooks)) for each in modules
        ],
        "attributes": [sorted(each.__dict__) for each in modules],
        "classes": [type(each) for each in modules],
        "gradients": [(each.requires_grad, each.grad) for each in model.parameters()],
        "fakes": [name for each in modules for name, value in vars(each).items() if isinstance(value, FakeTensor)],
        "random": torch.get_rng_state(),
        "patched": patched_attributes(),
    }


def patched_attributes() -> tuple[Any, ...]:
    """Return the attributes and settings of torch that a recording changes while it is active."""
    entry_points = (nn.Module.__dict__["_call_impl"], apis.vmap_impl, torch.autograd.Function.__dict__["apply"])
    return (
        *entry_points,
        torch.overrides.has_torch_function,
        len(_get_current_function_mode_stack()),
        eval_frame._stance.stance,
    )


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Assert that two snapshots of a model are equal, and that no attribute of the model is a fake tensor."""
    assert not after["fakes"]
    assert torch.equal(before.pop("random"), after.pop("random"))
    old, new = before.pop("state"), after.pop("state")
    assert old.keys() == new.keys()
    for name, value in old.items():
        assert value.is_meta or torch.equal(value, new[name]), name
    assert before == after


def gradients(run: Callable[..., Any], model: nn.Module, args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """Return the result of a run, and the gradients with respect to its floating-point inputs and the parameters.

    They are gradients of the sum of all elements of the result; each element of a tensor has a different weight.
    """
    args, kwargs = copy.deepcopy((args, kwargs))
    floating = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    inputs = [leaf.requires_grad_() for leaf in floating]
    torch.manual_seed(7)
    output = run(*args, **kwargs)
    made = [leaf for leaf in leaves(output) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    weights = [torch.arange(1, each.numel() + 1).reshape(each.shape).float().cos() for each in made]
    if made:
        torch.stack(
            [(each.float() * weight).sum() for each, weight in zip(made, weights, strict=True)]
        ).sum().backward()
    parameters = list(model.parameters())
    found = [None if each.grad is None else each.grad.clone() for each in (*inputs, *parameters)]
    for parameter in parameters:
        parameter.grad = None
    return output, found


@dataclass
class Agreement:
    """Records a call and compares the diagram and the model with a run without a recorder.

    Attributes:
        way: "trace" or "track", the function that records.
    """

    way: str

    def record(self, model: Any, *args: Any, **kwargs: Any) -> Diagram:
        """Return the diagram of a call; assert that the model is unchanged (trace) or as after a plain call (track)."""
        args, kwargs = copy.deepcopy((args, kwargs))
        before = snapshot(model)
        if self.way == "trace":
            diagram = trace(model, *args, **kwargs)
            assert_unchanged(before, snapshot(model))
            return diagram
        plain, after, seen = self._run_plain(model, args, kwargs), snapshot(model), io.StringIO()
        model.load_state_dict(before["state"])
        torch.manual_seed(7)
        with track(model, to=seen) as runs:
            assert_same(plain, model(*copy.deepcopy(args), **copy.deepcopy(kwargs)))
        assert_unchanged(after, snapshot(model))
        model.load_state_dict(before["state"])
        assert len(runs) == 1
        assert seen.getvalue()
        return runs.diagram

    @staticmethod
    def _run_plain(model: Any, args: Any, kwargs: Any) -> Any:
        torch.manual_seed(7)
        return model(*copy.deepcopy(args), **copy.deepcopy(kwargs))

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> Diagram:
        """Record a call and run the diagram; compare results and state bit for bit, and gradients approximately."""
        diagram = self.record(model, *args, **kwargs)
        no_machine_names(diagram)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        output, expected = gradients(model, model, args, kwargs)
        left = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        again, found = gradients(diagram, model, args, kwargs)
        assert_same(output, again)
        assert_same(left, dict(model.state_dict()))
        model.load_state_dict(state)
        assert [each is None for each in found] == [each is None for each in expected]
        for mine, other in zip(found, expected, strict=True):
            if mine is not None:
                torch.testing.assert_close(mine, other)
        return diagram


def no_machine_names(diagram: Diagram) -> None:
    """Assert that no text of a diagram shows a symbol that torch generated."""
    texts = [str(diagram), json.dumps(diagram.to_dict()), diagram.to_markdown(), diagram._repr_html_()]
    for text in [*texts, *[str(guard) for guard in diagram.guards], *[str(note) for note in diagram.fixed]]:
        assert re.search(r"\b(s|u|zuf)\d+\b", text) is None, text


@pytest.fixture(params=["trace", "track"])
def agree(request: pytest.FixtureRequest) -> Agreement:
    """Return an `Agreement` that records by `trace`, and one that records by `track`."""
    return Agreement(request.param)
