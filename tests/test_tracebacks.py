"""Where an error leaves the library, the user's line is directly above the message, in Python, pytest and notebooks."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import circuits
import models
from circuits import (
    CircuitError,
    LinearMap,
    Signature,
    Tracker,
    Window,
    as_linear,
    backward,
    broadcast,
    check,
    circuit,
    count,
    draw,
    einsum,
    fold,
    forward_backward,
    jacobian,
    kernel_of,
    laws,
    listing,
    rearrange,
    reduce,
    repeat,
    summary,
    trace,
    tracebacks,
    track,
    unfold,
)
from circuits.errors import entry_point


@circuit("y k, x k -> y x")
def scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT


class Layer(nn.Module):
    @circuit("y m -> y m")
    def forward(self, x: Tensor) -> Tensor:
        return x * scores(x, x[:, 1:]).sum()  # the inner mistake


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@circuit("a b -> a")
def not_a_sum(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def tracked(model: nn.Module, *inputs: Tensor) -> Any:
    with track(model, to=None):
        return model(*inputs)  # the tracked line


X, Y = torch.ones(2, 3), torch.ones(2, 4)
WINDOW = Window.parse("h -> h' i<3: 2*h' + i")

CASES: dict[str, Callable[[], Any]] = {
    "circuit": lambda: scores(X, Y),
    "module": lambda: Layer()(torch.ones(2)),
    "inner circuit": lambda: Layer()(X),
    "inner module": lambda: Outer()(torch.ones(2)),
    "signed instance": lambda: circuit("b m -> b m", fixed={"m": 3})(nn.ReLU())(Y),
    "vmap": lambda: torch.vmap(scores)(X, X),
    "no signature": lambda: circuit(3),  # type: ignore[arg-type]
    "signature": lambda: circuit("y m => m")(lambda x: x),
    "decoration": lambda: circuit("y m ->")(lambda: None),
    "options": lambda: circuit("y -> y", dtypes={"z": torch.long})(lambda y: y),
    "kernel": lambda: scores.kernel(lambda query: query),
    "kernel_of": lambda: kernel_of(torch.relu),
    "check": lambda: check(X, "b c", c=5),
    "parse": lambda: Signature.parse("y (m"),
    "einsum": lambda: einsum(X, Y, "y k, x k -> y x"),
    "einsum pattern": lambda: einsum(X, "bi->bj"),
    "einsum dtype": lambda: einsum(X, X.double(), "y k, x k -> y x"),
    "rearrange": lambda: rearrange(X, "y (h k) -> h y k", k=2),
    "reduce": lambda: reduce(X, "y m -> h", "sum"),
    "repeat": lambda: repeat(X, "y m -> y m k"),
    "window": lambda: Window("h", "h", "i", 3),
    "window parse": lambda: Window.parse("h -> h' i<3: h'*h'"),
    "unfold": lambda: unfold(torch.ones(2), "h -> h' i", WINDOW),
    "fold": lambda: fold(torch.ones(2, 2), "h' i -> h", WINDOW),
    "map": lambda: LinearMap(X, "a b -> c"),
    "map call": lambda: LinearMap(X, "a -> b")(Y),
    "map >>": lambda: LinearMap(X, "a -> b") >> LinearMap(Y, "b -> c"),
    "as_linear": lambda: as_linear(not_a_sum, a=2, b=3),
    "broadcast": lambda: broadcast(scores, "y k -> y"),
    "broadcast call": lambda: broadcast(scores, "b y k, b x k -> b y x")(torch.ones(2, 2, 3), torch.ones(2, 2, 4)),
    "trace": lambda: trace(3),
    "trace inside": lambda: trace(Outer(), torch.ones(2)),
    "trace data": lambda: trace(lambda x: x if x.sum() > 0 else -x, X),
    "trace sizes": lambda: trace(scores, sizes={"kk": 3}),
    "track": lambda: tracked(3),  # type: ignore[arg-type]
    "track call": lambda: tracked(Outer(), torch.ones(2)),
    "tracker": lambda: Tracker(nn.ReLU(), "relu", "a b -> a b", to=None)(torch.ones(2)),
    "diagram": lambda: trace(scores)(X, Y),
    "draw": lambda: draw(3),
    "listing": lambda: listing(scores, inside="nowhere"),  # type: ignore[arg-type]
    "backward": lambda: backward(scores, wrt="nothing"),
    "forward_backward": lambda: forward_backward(scores, wrt="nothing"),
    "jacobian": lambda: jacobian(3),
    "law": lambda: laws.equals(not_a_sum, lambda x: x.sum(-1)),
    "law of no circuit": lambda: laws.linear(torch.relu),
    "suite": lambda: laws.suite(scores, without={"nothing": "no reason"}),
    "constructor": lambda: models.MultiHeadAttention(m=0, k=2, h=2),
    "constructor inside": lambda: models.EncoderLayer(m=8, k=2, h=2, f=0),
    "weights": lambda: models.VisionTransformer.from_timm(3),  # type: ignore[arg-type]
    "load": lambda: models.load(__file__),
}


def frames(error: BaseException | None) -> Iterator[traceback.FrameSummary]:
    """Yield the frames of an error and of those that a traceback shows with it, but what was being handled before."""
    while error is not None and error is not sys.exception():
        yield from traceback.extract_tb(error.__traceback__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", CASES)
def test_the_users_line_is_the_last_and_no_line_of_ours_is_shown(name: str) -> None:
    with pytest.raises((CircuitError, AssertionError)) as caught:
        CASES[name]()
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.filename == __file__, f"{last}"
    assert last.name in ("<lambda>", "forward", "tracked")
    ours = [each for each in frames(caught.value) if "/circuits/" in each.filename or "<circuit" in each.filename]
    assert not ours


def test_the_last_line_is_the_innermost_of_the_users() -> None:
    for name, line in (("inner circuit", "# the inner mistake"), ("inner module", "return self.layer(x)")):
        with pytest.raises(CircuitError) as caught:
            CASES[name]()
        assert line in f"{traceback.extract_tb(caught.value.__traceback__)[-1].line}"


def test_frames_of_torch_above_the_users_line_are_hidden_from_pytest_and_ipython() -> None:
    with pytest.raises(CircuitError) as caught:
        Layer()(torch.ones(2))
    hidden = [each.ishidden(caught) for each in caught.traceback]
    assert hidden == [False, True, True, True]  # this line, two of Module.__call__, this line once more
    calls = [each.frame.code.name for each in caught.traceback]
    assert calls == [calls[0], "_wrapped_call_impl", "_call_impl", calls[0]]


def test_the_users_line_has_its_place_in_the_line() -> None:
    with pytest.raises(CircuitError) as caught:
        _ = 1 + Layer()(torch.ones(2))
    first, *_, last = traceback.extract_tb(caught.value.__traceback__)
    places = [(each.lineno, each.end_lineno, each.colno, each.end_colno) for each in (first, last)]
    assert places[0] == places[1]


def test_a_mistake_of_ours_keeps_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(sys.modules["circuits.recording.trace"], "bind_call", broken)
    with pytest.raises(KeyError) as caught:
        trace(scores)
    assert sum("/circuits/recording/" in each.filename for each in frames(caught.value)) > 1


TORCHS: dict[str, Callable[[], Any]] = {
    "operation": lambda: trace(lambda x: x @ x, X),
    "layer": lambda: trace(nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 2)), X),
    "argument": lambda: trace(nn.Linear(3, 2), (2, 3)),
    "users": lambda: trace(lambda x: {}["key"], X),
    "summary": lambda: summary(nn.Linear(3, 2), input_size=(2, 4)),
    "draw": lambda: draw(nn.Linear(3, 2), X.T),
    "count": lambda: count(nn.Linear(3, 2), X.T),
    "backward": lambda: backward(nn.Linear(3, 2), X.T),
}


@pytest.mark.parametrize("name", TORCHS)
def test_an_error_of_a_traced_model_ends_at_the_users_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((RuntimeError, TypeError, KeyError)) as caught:
        TORCHS[name]()
    assert not isinstance(caught.value, CircuitError)
    assert any(note.startswith("while tracing") for note in caught.value.__notes__)
    assert {each.filename for each in frames(caught.value)} == {__file__}
    monkeypatch.setattr(tracebacks, "ALL_FRAMES", True)
    with pytest.raises((RuntimeError, TypeError, KeyError)) as caught:
        TORCHS[name]()
    assert any("/circuits/recording/" in each.filename for each in frames(caught.value))


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Sequential(nn.ReLU(), nn.Linear(3, 2))], ids=["one", "nested"])
def test_an_error_of_a_tracked_model_has_the_frames_that_it_has_without(model: nn.Module) -> None:
    with pytest.raises(RuntimeError) as untracked:
        model(Y)
    with pytest.raises(RuntimeError) as caught:
        tracked(model, Y)
    plain = [each.name for each in traceback.extract_tb(untracked.value.__traceback__)][1:]
    assert [each.name for each in traceback.extract_tb(caught.value.__traceback__)][-len(plain) :] == plain
    assert not [each for each in frames(caught.value) if "/circuits/" in each.filename]


@pytest.mark.parametrize(
    "call",
    [lambda: track(nn.ReLU(), X), lambda: draw(), lambda: Tracker(), lambda: count(scores).at(3), lambda: check(X)],  # type: ignore[call-arg]
    ids=["track", "draw", "Tracker", "at", "check"],
)
def test_a_call_with_wrong_arguments_says_how_to_call(call: Callable[[], Any], request: Any) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert {each.filename for each in frames(caught.value)} == {__file__}
    (note,) = caught.value.__notes__
    name = request.node.callspec.id
    assert re.match(rf"(Cost\.)?{name}\(.*\)(: [A-Z]|$)", note)
    assert "self" not in note.partition(")")[0]


def documented(thing: Any) -> bool:
    """Return whether a docstring says that one of our errors is raised."""
    return bool(re.search(r"Raises:.*(Circuit|Signature|Shape)Error", thing.__doc__ or "", re.DOTALL))


def hides(function: Any) -> bool:
    """Return whether a function is an entry point, or hides frames itself."""
    code = entry_point(hides).__code__
    while getattr(function, "__code__", None) is not code and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function.__code__ is code or "hide_frames" in inspect.getsource(function)


def test_everything_public_that_documents_an_error_is_an_entry_point() -> None:
    found, checked = [], 0
    for name in circuits.__all__:
        thing = getattr(circuits, name)
        if not isinstance(thing, type):
            parts = {name: thing} if inspect.isfunction(thing) else {}
        else:
            ours = [each for each in thing.__mro__ if each.__module__.startswith("circuits")]
            parts = {f"{name}.{key}": value for each in ours for key, value in vars(each).items() if key[0] != "_"}
        for key, value in parts.items():
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if inspect.isfunction(function) and documented(function):
                checked += 1
                found += [] if hides(function) else [key]
    assert not found
    assert checked > 50


def test_all_frames_are_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracebacks, "ALL_FRAMES", True)
    with pytest.raises(CircuitError) as caught:
        scores(X, Y)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "examine"


def test_only_the_frames_of_one_call_are_hidden() -> None:
    """A later error that passes the same functions of torch is shown with them."""
    with pytest.raises(CircuitError):
        Layer()(torch.ones(2))
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(2, 3)(torch.ones(5))
    assert not any(each.ishidden(caught) for each in caught.traceback)


# --- as it is shown --------------------------------------------------------------------------------------------------

SCRIPT = """\
import torch
from torch import nn
from circuits import circuit, einsum


class Layer(nn.Module):
    @circuit("y m -> y m")
    def forward(self, x):
        return einsum(x, torch.ones(3, 4), "y m, k m -> y k")


layer = Layer()
"""
RUN_NOTEBOOK = """\
import sys
import nbclient, nbformat

cells = [nbformat.v4.new_code_cell(source) for source in sys.argv[1:]]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=300, allow_errors=True).execute()
print("\\n=====\\n".join("\\n".join(cell.outputs[0].traceback) for cell in cells[1:]))
"""
CALLS = {"outer": "layer(torch.ones(2))", "inner": "layer(torch.ones(2, 3))"}


def plain(text: str, folder: Path) -> str:
    """Return a printed traceback without colours, folders, line numbers of torch, carets under code, and times."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"{folder}/", "").replace(f"{folder}", "")
    text = re.sub(r"[\w/.~-]*/(torch/nn/modules/module\.py)", r"\1", text)
    text = re.sub(r'(module\.py"?[:,](?: line )?) ?\d+', r"\1…", text)
    text = re.sub(r"in \d+\.\d+s", "in …s", re.sub(r"[\w/]*/ipykernel_\d+/\d+\.py", "cell.py", text))
    above, message, below = text.partition("\ncircuits.errors.")
    above = re.sub(r"\n +[~^]+(?=\n|$)", "", above)  # they differ between versions of Python
    return "\n".join([line.rstrip() for line in f"{above}{message}{below}".splitlines()]) + "\n"


def run(folder: Path, *command: str) -> str:
    hidden = ("PYTEST", "COLUMNS", "CI")  # pytest shortens nothing where there is a CI
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment)
    return plain(done.stdout or done.stderr, folder)


@pytest.mark.slow
def test_as_python_shows_it(golden: Any, tmp_path: Path) -> None:
    for name, call in CALLS.items():
        (tmp_path / "use.py").write_text(f"{SCRIPT}{call}\n")
        golden(f"tracebacks/python_{name}.txt", run(tmp_path, "use.py"))


@pytest.mark.slow
def test_as_pytest_shows_it(golden: Any, tmp_path: Path) -> None:
    tests = [f"\n\ndef test_{name}():\n    {call}\n" for name, call in CALLS.items()]
    (tmp_path / "test_use.py").write_text("".join([SCRIPT, *tests]))
    text = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_use.py")
    golden("tracebacks/pytest.txt", text)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(each) is None for each in ("nbclient", "nbformat", "ipykernel")),
    reason="nbclient, nbformat and ipykernel are not installed",
)
def test_as_a_notebook_shows_it(golden: Any, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN_NOTEBOOK)
    shown = run(tmp_path, "run.py", SCRIPT, *CALLS.values()).split("=====\n")
    for name, text in zip(CALLS, shown, strict=True):
        golden(f"tracebacks/notebook_{name}.txt", text)
