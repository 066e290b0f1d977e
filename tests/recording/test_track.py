# To pyright a submodule or a buffer is a Tensor or a Module; this file also uses private names of torch.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportPrivateImportUsage=false, reportUnusedExpression=false
"""track: a real run is printed while it runs, up to a box that fails, and nothing remains attached to the model."""

import io
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame

import models
from circuits import CircuitError, CircuitWarning, circuit, einsum, switch, trace, track
from tests.conftest import patched_attributes


class Fails(nn.Module):
    """A module that computes a sum and then raises the given error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x.sum()
        raise self.error


class Own(Exception):
    """An exception that only this file raises."""


def model(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU())


# Printed lines -------------------------------------------------------------------------------------------------------


def printed(run: Callable[[], Any], target: Any, **options: Any) -> str:
    """Return the lines that `track` prints during `run()`."""
    to = io.StringIO()
    with track(target, to=to, **options):
        run()
    return to.getvalue()


class Late(nn.Module):
    """Layers without names before a circuit, which states some; the batch is counted, and noise is added."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(3)])
        self.attention = models.MultiHeadAttention(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x) + torch.rand(x.shape[-1]).softmax(-1)
        return self.attention(x, x).clamp(min=0)


RUNS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "names late": (Late, (3, 4)),
    "no names": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3), (5, 2, 8)),
    "names early": (lambda: models.EncoderLayer(8, 4, 2, 16), (5, 8)),
    "images": (lambda: models.IdentityResNet(2, (4, 4, 8, 8)), (2, 3, 32, 32)),
}


@pytest.mark.every(3)
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", RUNS)
def test_the_lines_are_the_same_whether_a_diagram_is_kept_or_not(name: str, fold: bool) -> None:
    make, shape = RUNS[name]
    target, x = make(), torch.rand(shape)
    to = io.StringIO()
    with track(target, to=to, fold=fold) as seen:
        target(x)
    assert printed(lambda: target(x), target, fold=fold) == to.getvalue()
    assert len(to.getvalue().splitlines()) > 10
    assert len(seen) == 1


def test_shared_parameters_are_counted_once() -> None:
    """A layer that two names have, and a weight that two layers have; torch counts the same."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    shared = nn.Sequential(first, nn.Sequential(first, second))
    count = sum([parameter.numel() for parameter in shared.parameters()])
    outermost, *_ = printed(lambda: shared(torch.ones(2, 4)), shared).splitlines()[1:]
    assert outermost.split()[-1] == f"{count}" == "24"


@pytest.mark.smoke
def test_a_run_is_printed_as_it_happens(golden: Any) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model()
            self.rows = nn.Parameter(torch.ones(3, 4))

        @circuit("b y m -> b y x")
        def forward(self, x: Tensor) -> Tensor:
            return einsum(self.layers(x), self.rows, "b y m, x m -> b y x").softmax(-1)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = Scores()

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(torch.cos)(self.scores(x) @ x) + x

    whole, x = Attends(), torch.rand(2, 3, 4)
    golden("recording/printed.txt", printed(lambda: whole(x), whole))
    golden("recording/printed_to_depth_1.txt", printed(lambda: whole(x), whole, depth=1))


def test_lines_are_printed_while_the_model_runs() -> None:
    to, when = io.StringIO(), []

    class CountsLines(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.sin()
            when.append(to.getvalue().count("\n"))
            x = x.cos()
            when.append(to.getvalue().count("\n"))
            return x.tan()

    counts_lines = CountsLines()
    with track(counts_lines, to=to):
        counts_lines(torch.rand(3))
    assert when[0] < when[1] < to.getvalue().count("\n")


def test_small_tensors_are_shown_with_their_values(golden: Any) -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.5, 0.0]]))
        layers[0].bias.zero_()
    golden("recording/printed_values.txt", printed(lambda: layers(torch.eye(2)), layers, values=4))
    assert "[" not in printed(lambda: layers(torch.eye(2)), layers, values=3)


def test_lines_are_written_to_the_given_sink(caplog: Any, capsys: Any) -> None:
    layers, lines = model(), []
    with track(layers, to=lines.append), caplog.at_level(logging.INFO):
        layers(torch.rand(2, 4))
    with track(layers, to=logging.getLogger("circuits.test")), caplog.at_level(logging.INFO):
        layers(torch.rand(2, 4))
    assert [record.getMessage() for record in caplog.records] == lines
    assert capsys.readouterr().out == ""
    with track(layers):
        layers(torch.rand(2, 4))
    assert capsys.readouterr().out.splitlines() == lines
    with track(layers, to=None) as seen:
        layers(torch.rand(2, 4))
    assert capsys.readouterr().out == ""
    assert len(seen) == 1
    with pytest.raises(CircuitError, match="not to int"), track(layers, to=3):
        pass


# A forward that raises -----------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[Callable[[], nn.Module], type[BaseException]]] = {
    "operation": (lambda: nn.Sequential(model(), nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3))), RuntimeError),
    "module": (lambda: nn.Sequential(model(), nn.Sequential(Fails(Own("no more")), nn.ReLU())), Own),
    "interrupt": (lambda: nn.Sequential(model(), Fails(KeyboardInterrupt())), KeyboardInterrupt),
    "empty_message": (lambda: nn.Sequential(Fails(Own())), Own),
}


@pytest.mark.parametrize("name", FAILURES)
def test_boxes_are_printed_up_to_the_one_that_failed(name: str, golden: Any) -> None:
    make, kind = FAILURES[name]
    failing, to, before = make(), io.StringIO(), patched_attributes()
    with pytest.raises(kind) as plain:
        failing(torch.ones(2, 4))
    with pytest.raises(kind) as caught, track(failing, to=to) as seen:
        failing(torch.ones(2, 4))
    assert str(caught.value) == str(plain.value)
    if kind is not RuntimeError:
        assert caught.value is plain.value
    assert not hasattr(caught.value, "__notes__")
    assert patched_attributes() == before
    assert (switch.active, switch.current()) == (0, None)
    assert len(seen) == 1
    assert [box.error != "" for box in seen.diagram.walk()].count(True) == 1
    golden(f"recording/failed_{name}.txt", f"{to.getvalue()}\n{seen}\n")


def test_an_error_inside_vmap(golden: Any) -> None:
    class Maps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row: row.cos() @ torch.ones(3))(x)

    maps, to, before = Maps(), io.StringIO(), patched_attributes()
    with pytest.raises(RuntimeError, match="size mismatch"), track(maps, to=to) as seen:
        maps(torch.rand(2, 4))
    assert patched_attributes() == before
    assert torch._C._functorch.maybe_current_level() is None
    assert torch.equal(torch.vmap(torch.sin)(torch.ones(2)), torch.ones(2).sin())
    golden("recording/failed_vmap.txt", f"{to.getvalue()}\n{seen}\n")


def test_after_a_failure_the_next_run_is_recorded() -> None:
    layers = model()
    with track(layers, to=None) as seen:
        for x in (torch.ones(2, 3), torch.ones(2, 4)):
            try:
                layers(x)
            except RuntimeError:
                continue
    assert [diagram.failed for diagram in seen] == [True, False]


def test_a_caught_error_and_the_raised_error_are_both_marked() -> None:
    class Catches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                x @ torch.ones(3)
            except RuntimeError:
                x = x.cos()
            return x.reshape(7)

    catches = Catches()
    with track(catches, to=None) as seen, pytest.raises(RuntimeError):
        catches(torch.ones(4))
    assert [(box.label, box.error != "") for box in seen.diagram.boxes] == [
        ("ones", False), ("matmul", True), ("cos", False), ("reshape", True),
    ]  # fmt: skip


def test_wrong_arguments_raise_type_error() -> None:
    layers = nn.Linear(4, 4)
    with track(layers, to=None) as seen, pytest.raises(TypeError, match="takes 2 positional arguments"):
        layers(torch.ones(2, 4), torch.ones(2, 4))
    assert seen.diagram.failed


# Recorded runs -------------------------------------------------------------------------------------------------------


def test_each_call_is_one_diagram() -> None:
    layers = model()
    with track(layers, to=None) as seen:
        for rows in (2, 3, 5):
            layers(torch.rand(rows, 4))
        nn.Linear(4, 4)(torch.rand(7, 4))
    assert [diagram.outputs[0].sizes for diagram in seen] == [(2, 4), (3, 4), (5, 4)]
    assert seen.diagram is seen[-1]
    assert str(seen) == "\n".join(str(diagram) for diagram in seen)
    layers(torch.rand(2, 4))
    assert len(seen) == 3


def test_the_diagram_of_no_run_is_refused() -> None:
    with track(model(), to=None) as seen:
        pass
    with pytest.raises(CircuitError, match="no run was recorded"):
        seen.diagram  # noqa: B018


@pytest.mark.parametrize("target", [3, "model", torch.sin, lambda x: x])
def test_targets_other_than_modules_and_circuits_are_refused(target: Any) -> None:
    with pytest.raises(CircuitError, match="track records the calls of a module or circuit, not "), track(target):
        pass


def test_a_track_outside_a_with_says_so() -> None:
    model = nn.ReLU()
    with pytest.warns(CircuitWarning, match="this one has recorded nothing: with track") as caught:
        track(model)
    assert caught[0].filename == __file__
    seen = track(model, to=None)
    with pytest.raises(AttributeError, match=r"whose value has \.diagram: with track\(model\) as seen"):
        seen.diagram  # noqa: B018
    with warnings.catch_warnings(record=True) as warned:  # as errors they would be lost in `__del__`
        warnings.simplefilter("always")
        with seen as first:
            model(torch.ones(2))
        with seen as second, track(model, to=None):
            model(torch.ones(3))
        del seen
    assert not warned
    assert [len(first), len(second)] == [1, 1]
    assert second.diagram.inputs[0].sizes == (3,)


def test_circuits_and_methods_are_tracked() -> None:
    @circuit("y m -> m")
    def total(x: Tensor) -> Tensor:
        return x.sum(0)

    with track(total, to=None) as seen:
        total(torch.rand(2, 3))
    assert (seen.diagram.name, seen.diagram.inputs[0].axes) == ("total", ("y", "m"))


def test_two_active_trackers_record_their_own_targets() -> None:
    one, other = model(), model()
    both = nn.Sequential(one, other)
    with track(one, to=None) as first, track(other, to=None) as second:
        one(torch.rand(2, 4))
        other(torch.rand(3, 4))
    assert [[diagram.outputs[0].sizes for diagram in seen] for seen in (first, second)] == [[(2, 4)], [(3, 4)]]
    with track(both, to=None) as outer, track(other, to=None) as inner:
        both(torch.rand(2, 4))
    assert [box.label for box in inner.diagram.walk()] == ["Sequential", "Linear", "linear", "ReLU", "relu"]
    assert [box.label for box in outer.diagram.walk()].count("linear") == 2


def test_a_model_under_vmap_and_under_functional_call() -> None:
    layer = nn.Linear(4, 3)
    with track(layer, to=None) as seen:
        torch.vmap(layer)(torch.rand(5, 2, 4))
    assert (seen.diagram.outputs[0].mapped, seen.diagram.outputs[0].sizes) == (1, (5, 2, 3))

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).sum()

    x, parameters = torch.rand(2, 4), dict(layer.named_parameters())
    plain = torch.func.grad(loss)(parameters, x)
    with track(layer, to=None) as seen:
        found = torch.func.grad(loss)(parameters, x)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert [(value.name, value.sizes) for value in seen.diagram.parameters] == [("weight", (3, 4)), ("bias", (3,))]


def test_training_is_the_same_under_track() -> None:
    def losses(tracked: bool) -> list[float]:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer, found = torch.optim.Adam(layers.parameters()), []
        with track(layers if tracked else nn.ReLU(), to=None):
            for _ in range(3):
                loss = layers(torch.rand(8, 4)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
        return found

    assert losses(True) == losses(False)


@pytest.mark.slow
def test_nothing_is_compiled_while_a_run_is_recorded() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    layer, function = torch.compile(nn.Linear(4, 4), backend=backend), torch.compile(torch.sin, backend=backend)

    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return function(self.layer(x))

    whole, x = Compiled(), torch.rand(2, 4)
    whole.compile(backend=backend)
    with track(whole, to=None) as seen:
        whole(x)
    for diagram in (seen.diagram, trace(whole, x)):
        assert [box.label for box in diagram.walk() if box.kind == "operation"] == ["linear", "sin"]
    assert not compiled
    whole(x)
    assert compiled


def test_a_module_that_is_compiled_while_a_run_is_recorded_is_compiled_afterwards() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    class Sine(nn.Module):  # torch does not compile its own layers alone
        def forward(self, x: Tensor) -> Tensor:
            return x.sin()

    layer, x = Sine(), torch.rand(2, 4)
    with track(layer, to=None) as seen:
        layer.compile(backend=backend)
        layer(x)
    assert layer._compiled_call_impl._torchdynamo_orig_callable == layer._call_impl  # type: ignore[attr-defined]
    assert [box.label for box in seen.diagram.walk()] == ["Sine", "sin"]
    assert not compiled
    layer(x)
    assert compiled


# Threads -------------------------------------------------------------------------------------------------------------


def in_threads(*runs: Callable[[], Any]) -> None:
    """Call each function in a thread of its own, and assert that none raises an exception."""
    failed: list[BaseException] = []

    def guarded(run: Callable[[], Any]) -> None:
        try:
            run()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_threads_record_only_their_own_runs() -> None:
    before, together, stop = patched_attributes(), threading.Barrier(3), threading.Event()
    recorded: dict[int, Any] = {}

    def record(width: int) -> None:
        layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(10)])
        together.wait()
        with track(layers, to=None) as seen:
            for _ in range(5):
                layers(torch.rand(2, width))
        recorded[width] = seen
        if len(recorded) == 2:
            stop.set()

    def run_unrecorded() -> None:
        layers, x = model(), torch.rand(2, 4)
        expected = layers(x)
        together.wait()
        while not stop.is_set():
            assert torch.equal(layers(x), expected)
            assert torch.equal(torch.vmap(layers)(x), expected)

    in_threads(lambda: record(3), lambda: record(5), run_unrecorded)
    for width, seen in recorded.items():
        assert len(seen) == 5
        for diagram in seen:
            assert {value.sizes for box in diagram.walk() for value in box.outputs} == {(2, width)}
            assert len(list(diagram.walk())) == 21
    assert patched_attributes() == before


def test_overlapping_trackers_in_two_threads_restore_torch() -> None:
    before, inside, ended = patched_attributes(), threading.Event(), threading.Event()

    def first() -> None:
        with track(model(), to=None):
            inside.wait()
        ended.set()

    def second() -> None:
        with track(model(), to=None):
            inside.set()
            ended.wait()

    in_threads(first, second)
    assert patched_attributes() == before
    assert eval_frame._stance.stance == "default"
    assert switch.active == 0
