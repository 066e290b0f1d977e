# To pyright a submodule or a buffer is a Tensor or a Module.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Tracker: a module that prints the sizes of a wrapped module's inputs and outputs, and otherwise behaves like it."""

import collections
import copy
import dataclasses
import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, Tracker, backward, circuit, trace, track
from circuits.diagram import attribute


def lines(make: Callable[..., Tracker], *calls: tuple[Any, ...]) -> list[str]:
    """Return the lines that a tracker prints when it is called with each tuple of arguments."""
    printed: list[str] = []
    tracker = make(to=printed.append)
    for args in calls:
        tracker(*args)
    return printed


def convolution(**options: Any) -> Tracker:
    return Tracker(nn.Conv2d(33, 32, 4, stride=3), "Cq", "b c h w -> b k h' w'", **options)


IMAGE = torch.rand(1, 33, 16, 16)


@pytest.mark.smoke
def test_each_call_prints_the_line_of_the_notebook() -> None:
    assert lines(lambda **o: Tracker(nn.Conv2d(33, 32, 4, stride=3), "Cq", **o), (IMAGE,)) == [
        "Cq: \t 1 33 16 16 -> 1 32 5 5"
    ]
    assert lines(convolution, (IMAGE,), (IMAGE[:, :, :7],)) == [
        "Cq: \t 1 33 16 16 -> 1 32 5 5 \t b c h w -> b k h' w'",
        "Cq: \t 1 33 7 16 -> 1 32 2 5 \t b c h w -> b k h' w'",
    ]


def test_lines_are_printed_to_stdout_by_default(capsys: Any) -> None:
    Tracker(nn.ReLU())(torch.rand(2, 3))
    assert capsys.readouterr().out == "ReLU: \t 2 3 -> 2 3\n"


def test_several_and_nested_inputs_and_outputs() -> None:
    x = torch.rand(2, 5, 16)
    assert lines(lambda **o: Tracker(nn.MultiheadAttention(16, 4, batch_first=True), **o), (x, x, x)) == [
        "MultiheadAttention: \t 2 5 16, 2 5 16, 2 5 16 -> 2 5 16, 2 5 5"
    ]
    assert lines(lambda **o: Tracker(nn.LSTM(16, 3), **o), (x, (torch.rand(1, 5, 3), torch.rand(1, 5, 3)))) == [
        "LSTM: \t 2 5 16, 1 5 3, 1 5 3 -> 2 5 3, 1 5 3, 1 5 3"
    ]


def test_the_axes_of_a_wrapped_circuit_are_printed() -> None:
    class Twice(nn.Module):
        @circuit("y m -> y m")
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    assert lines(lambda **o: Tracker(Twice(), **o), (torch.rand(2, 3),)) == ["Twice: \t 2 3 -> 2 3 \t y m -> y m"]


@pytest.mark.parametrize("image", [torch.rand(33, 16, 16), torch.rand(33)])
def test_a_shape_error_names_the_tracker(image: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"^Cq: b c h w -> b k h' w'"):
        convolution(to=None)(image)


def test_the_state_dict_of_a_model_is_the_same_without_its_trackers() -> None:
    plain, tracked = layers(lambda module: module), layers(lambda module: Tracker(module, to=None))
    plain_state, tracked_state = plain.state_dict(), tracked.state_dict()
    assert list(plain_state) == list(tracked_state)
    assert plain_state._metadata == tracked_state._metadata
    tracked.load_state_dict(plain_state, strict=True)
    assert torch.equal(plain.eval()(torch.ones(3, 4)), tracked.eval()(torch.ones(3, 4)))
    tracked.train()(torch.randn(3, 4))
    plain.load_state_dict(tracked.state_dict(), strict=True)
    assert torch.equal(plain(torch.ones(3, 4)), tracked.eval()(torch.ones(3, 4)))
    alone = Tracker(nn.Linear(4, 4))
    alone.load_state_dict(nn.Linear(4, 4).state_dict())
    parallel = Tracker(nn.DataParallel(nn.Linear(4, 4)))
    parallel.load_state_dict(parallel.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        tracked.load_state_dict({"0.0.weight": torch.ones(4)})


def test_attributes_are_those_of_the_wrapped_module() -> None:
    inner = nn.Linear(4, 3)
    tracker, weight = Tracker(inner, to=None), nn.Parameter(torch.ones(3, 4))
    assert tracker.weight is inner.weight
    assert (tracker.in_features, tracker.bias.shape) == (4, (3,))
    tracker.weight = weight
    assert inner.weight is weight
    tracker.note = "mine"
    assert not hasattr(inner, "note")
    tracker.to(torch.float64).train(False)
    assert (inner.weight.dtype, inner.training) == (torch.float64, False)
    with pytest.raises(AttributeError, match="nothing"):
        tracker.nothing  # noqa: B018


def layers(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a model in which `wrap` is called with layers, with a model of such layers, and twice with one layer."""
    inner = wrap(nn.Sequential(wrap(nn.BatchNorm1d(4)), wrap(nn.Linear(4, 4))))
    return nn.Sequential(inner, nn.ReLU(), wrap(wrap(nn.Linear(4, 2))))


def test_parameters_and_buffers_have_the_names_of_the_state_dict() -> None:
    plain, tracked = layers(lambda module: module), layers(lambda module: Tracker(module, to=None))
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        names = [name for name, _ in named(tracked)]
        assert names == [name for name, _ in named(plain)]
        assert all(attribute(tracked, name) is value for name, value in named(tracked))
    assert list(tracked.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in Tracker(nn.Sequential(nn.Linear(2, 2))).named_modules()] == ["", "module", "0"]
    assert len(list(tracked.parameters())) == len(list(plain.parameters()))


@pytest.mark.parametrize(
    "change", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda m: m.double()]
)
def test_a_copy_or_a_conversion_keeps_the_names(change: Callable[[nn.Module], nn.Module]) -> None:
    tracked = change(layers(lambda module: Tracker(module, to=None))).eval()
    x = torch.ones(3, 4, dtype=next(tracked.parameters()).dtype)
    doubled = {name: value * 2 for name, value in tracked.state_dict().items()}
    assert set(dict(tracked.named_parameters())) < set(doubled)
    out = torch.func.functional_call(tracked, doubled, x)
    tracked.load_state_dict(doubled)
    assert torch.equal(tracked(x), out)


def test_backward_names_parameters_as_an_optimizer_does() -> None:
    tracked = nn.Sequential(Tracker(nn.Linear(4, 3), to=None), nn.ReLU())
    gradients = backward(tracked, torch.ones(2, 4))(torch.ones(2, 4), torch.ones(2, 3))
    assert list(gradients)[1:] == [name for name, _ in tracked.named_parameters()]


def test_a_container_has_its_length_and_its_parts() -> None:
    first, second, new = nn.Linear(4, 3), nn.ReLU(), nn.GELU()
    stack = Tracker(nn.Sequential(first, second), to=None)
    assert (len(stack), stack[0], list(stack), second in stack, bool(stack)) == (2, first, [first, second], True, True)
    stack[1] = new
    assert list(stack.module.children())[1] is new
    assert bool(Tracker(nn.ReLU()))
    with pytest.raises(TypeError, match="len"):
        len(Tracker(nn.ReLU()))
    assert list(Tracker(nn.ModuleDict({"a": new})).items()) == [("a", new)]


def test_another_wrapped_module_takes_the_place_of_the_first() -> None:
    tracker = Tracker(nn.Linear(4, 3), to=None)
    tracker.module = nn.Linear(4, 2, bias=False)
    assert [name for name, _ in tracker.named_parameters()] == list(tracker.state_dict()) == ["weight"]


def test_sizes_inside_dataclasses_and_mappings_are_printed() -> None:
    @dataclasses.dataclass
    class Result:
        hidden: Tensor
        rest: dict[str, Tensor]

    class Net(nn.Module):
        def forward(self, inputs: collections.UserDict[str, Tensor]) -> Result:
            return Result(inputs["x"], {"y": inputs["x"][0]})

    given = collections.UserDict({"x": torch.ones(2, 3)})
    assert lines(lambda **o: Tracker(Net(), **o), (given,)) == ["Net: \t 2 3 -> 2 3, 3"]


def test_hooks_of_the_wrapped_module_run() -> None:
    inner = nn.ReLU()
    inner.register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(Tracker(inner, to=None)(torch.zeros(2)), torch.ones(2))


def test_times_rank_and_sink(monkeypatch: Any, caplog: Any) -> None:
    x = torch.rand(2)
    assert len(lines(lambda **o: Tracker(nn.ReLU(), times=2, **o), (x,), (x,), (x,))) == 2
    assert len(lines(lambda **o: Tracker(nn.ReLU(), rank=0, **o), (x,))) == 1
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert lines(lambda **o: Tracker(nn.ReLU(), rank=0, **o), (x,)) == []
    assert len(lines(lambda **o: Tracker(nn.ReLU(), **o), (x,))) == 1
    with caplog.at_level(logging.INFO):
        Tracker(nn.ReLU(), to=logging.getLogger("circuits.test"))(x)
    assert [record.getMessage() for record in caplog.records] == ["ReLU: \t 2 -> 2"]
    with pytest.raises(CircuitError, match="not to int"):
        Tracker(nn.ReLU(), to=3)(x)  # type: ignore[arg-type]


def test_values_of_small_tensors() -> None:
    found = lines(lambda **o: Tracker(nn.Softmax(-1), values=4, **o), (torch.zeros(2, 2),), (torch.zeros(3, 3),))
    assert found == ["Softmax: \t 2 2 -> 2 2", "[[0.5000, 0.5000],\n [0.5000, 0.5000]]", "Softmax: \t 3 3 -> 3 3"]


def copies(tracker: nn.Module) -> list[Callable[[], nn.Module]]:
    """Return functions that copy a tracker: by `deepcopy`, by pickle, and by `torch.save` and `torch.load`."""

    def saved() -> nn.Module:
        file = io.BytesIO()
        torch.save(tracker, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    return [lambda: copy.deepcopy(tracker), lambda: pickle.loads(pickle.dumps(tracker)), saved]


def test_copied_pickled_and_saved(capsys: Any) -> None:
    tracker = Tracker(nn.Linear(4, 3), "L", "b m -> b k", times=2)
    for make in copies(tracker):
        copied, x = make(), torch.rand(2, 4)
        assert torch.equal(copied(x), tracker.module(x))
        assert capsys.readouterr().out == "L: \t 2 4 -> 2 3 \t b m -> b k\n"
        with pytest.raises(ShapeError, match="L: b m -> b k"):
            copied(torch.rand(4))
    silent = [make() for make in copies(Tracker(nn.ReLU(), to=io.StringIO()))]
    assert all(torch.equal(each(torch.ones(2)), torch.ones(2)) for each in silent)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("signature", [None, "b m -> b k"])
def test_a_tracker_compiles_with_fullgraph(signature: str | None) -> None:
    tracker = Tracker(nn.Linear(4, 3), "L", signature)
    compiled, x = torch.compile(tracker, backend="eager", fullgraph=True), torch.rand(2, 4)
    assert torch.equal(compiled(x), tracker.module(x))


@pytest.mark.slow
def test_a_recorded_tracker_is_a_box_and_prints_nothing(capsys: Any) -> None:
    model = nn.Sequential(convolution(), nn.ReLU())
    diagram, images = trace(model, axes="b 33 h w"), torch.rand(2, 33, 16, 16)
    assert diagram.inputs[0].axes == ("b", "c", "h", "w")
    assert diagram.outputs[0].axes[1] == "k"
    with track(model, to=None) as seen:
        model(images)
    assert capsys.readouterr().out == ""
    assert [box.label for box in seen.diagram.walk()] == [box.label for box in diagram.walk()]
    assert torch.equal(diagram(images), seen.diagram(images))
