"""Random number generators: a diagram draws the model's numbers from the same generator, or refuses to run."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from circuits import CircuitError, Diagram, trace, track
from circuits.recording import leaks

X = torch.zeros(3)
SHARED = Generator().manual_seed(9)


class Held(nn.Module):
    """Draws from a generator that it holds, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = [Generator().manual_seed(3)]

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, generator=self.generators[0])


class Twice(Held):
    """Draws twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x))


class SeededBetween(Held):
    """Seeds the generator between two draws."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.generators[0].manual_seed(1)
        return super().forward(y)


class Default(nn.Module):
    """Draws from torch's default generator by its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(3, generator=torch.default_generator)


class Seeded(Held):
    """Seeds the generator in each call."""

    def forward(self, x: Tensor) -> Tensor:
        self.generators[0].manual_seed(1)
        return super().forward(x)


class Made(nn.Module):
    """Makes a generator in each call."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, generator=Generator().manual_seed(1))


class Global(nn.Module):
    """Draws from a global generator, also by a function of torch.nn."""

    def forward(self, x: Tensor) -> Tensor:
        return x.bernoulli(0.5, generator=SHARED) + nn.init.normal_(torch.empty(3), generator=SHARED)


class Attribute(nn.Module):
    """Draws from a generator of its class."""

    generator = Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randperm(3, generator=self.generator)


def by_track(model: nn.Module) -> Diagram:
    with track(model, to=None) as seen:
        model(X)
    return seen.diagram


RECORD: dict[str, Callable[[nn.Module], Diagram]] = {"trace": lambda model: trace(model, X), "track": by_track}


def generator_of(model: nn.Module) -> Generator:
    """Return the generator that a model draws from."""
    if isinstance(model, Default):
        return torch.default_generator
    return model.generators[0] if isinstance(model, Held) else getattr(model, "generator", SHARED)


@pytest.mark.parametrize("record", RECORD)
@pytest.mark.parametrize("kind", [Held, Twice, Global, Attribute, Default])
def test_a_diagram_draws_from_the_generator_of_the_model(kind: type[nn.Module], record: str) -> None:
    model = kind()
    generator = generator_of(model)
    diagram = RECORD[record](model)
    for _ in range(2):
        before = generator.get_state()
        expected = model(X)
        after = generator.get_state()
        generator.set_state(before)
        assert torch.equal(diagram(X), expected)
        assert torch.equal(generator.get_state(), after)


@pytest.mark.parametrize("record", RECORD)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Made, "that the run made"),
        (Seeded, "whose state the run has set"),
        (SeededBetween, "whose state the run has set"),
    ],
)
def test_a_generator_made_or_seeded_in_the_run_is_refused(kind: type[nn.Module], reason: str, record: str) -> None:
    diagram = RECORD[record](kind())
    assert "rand" in str(diagram)
    with pytest.raises(CircuitError, match=rf"test_generators.py:\d+ draws from a torch.Generator {reason}"):
        diagram(X)


@pytest.mark.parametrize("kind", [Held, Seeded, Global])
def test_a_trace_leaves_the_generator_as_it_was(kind: type[nn.Module]) -> None:
    model = kind()
    before = generator_of(model).get_state()
    trace(model, X)
    assert torch.equal(generator_of(model).get_state(), before)


def test_a_generator_in_a_closure_and_among_the_arguments() -> None:
    def draw(x: Tensor, generator: Generator) -> Tensor:
        return x + torch.rand(3, generator=generator)

    held = Generator().manual_seed(4)
    for diagram, args in ((trace(lambda x: draw(x, held), X), (X,)), (trace(draw, X, held), (X, held))):
        before = held.get_state()
        expected = draw(X, held)
        held.set_state(before)
        assert torch.equal(diagram(*args), expected)


@pytest.mark.parametrize("record", RECORD)
def test_a_generator_that_is_seeded_to_the_state_that_it_has_is_refused(record: str) -> None:
    start = Generator().manual_seed(3).get_state()

    class Inside(Held):
        def forward(self, x: Tensor) -> Tensor:
            self.generators[0].manual_seed(3)
            return super().forward(x)

    class ByState(Held):
        def forward(self, x: Tensor) -> Tensor:
            self.generators[0].set_state(start)
            return super().forward(x)

    class ByFunction(Held):
        def forward(self, x: Tensor) -> Tensor:
            _seed(self.generators[0])
            return super().forward(x)

    for kind in (Inside, ByState, ByFunction):
        diagram = RECORD[record](kind())
        with pytest.raises(CircuitError, match=rf"the code at {__file__}:\d+ sets the state of one"):
            diagram(X)


def _seed(generator: Generator) -> None:
    generator.manual_seed(3)


class Plain(nn.Module):
    """Draws from a generator that is not torch's."""

    def __init__(self, draw: Callable[[Any], float], held: Any = None) -> None:
        super().__init__()
        self.draw, self.held = draw, held

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.draw(self.held) < 0.5 else x + self.draw(self.held)


PLAIN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "random": (lambda: Plain(lambda _: random.random()), "Python's random"),
    "numpy.random": (lambda: Plain(lambda _: np.random.rand()), "numpy.random"),
    "a random.Random": (lambda: Plain(lambda held: held.random(), random.Random(1)), "Random"),
    "a numpy Generator": (lambda: Plain(lambda held: held.random(), np.random.default_rng(1)), "Generator"),
    "a RandomState": (lambda: Plain(lambda held: held.rand(), np.random.RandomState(1)), "RandomState"),
    "a global": (lambda: Plain(lambda _: OURS.random()), "Random"),
}
OURS = random.Random(2)


@pytest.mark.parametrize("record", RECORD)
@pytest.mark.parametrize("name", PLAIN)
def test_numbers_drawn_without_torch_are_refused(name: str, record: str) -> None:
    make, which = PLAIN[name]
    model = make()
    with pytest.raises(CircuitError, match=f"the run draws random numbers from {which}, which a diagram"):
        RECORD[record](model)(X)


@pytest.mark.parametrize("name", PLAIN)
def test_a_trace_draws_no_numbers_that_the_user_misses(name: str) -> None:
    def start() -> None:
        random.seed(3)
        np.random.seed(3)
        OURS.seed(3)

    start()
    expected = PLAIN[name][0]()(X)
    start()
    model = PLAIN[name][0]()
    trace(model, X)
    assert torch.equal(model(X), expected)


def _default(x: Tensor) -> Tensor:
    torch.default_generator.manual_seed(3)
    return x + torch.rand(3)


def _global(x: Tensor) -> Tensor:
    SHARED.manual_seed(1)
    return x + torch.rand(3, generator=SHARED)


@pytest.mark.parametrize("record", RECORD)
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_default, "seeds a default generator by a function that is not recorded"),
        (_global, "whose state the run has set"),
    ],
)
def test_a_generator_seeded_by_its_own_method_is_refused(
    function: Callable[[Tensor], Tensor], reason: str, record: str
) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    torch.manual_seed(0)
    SHARED.manual_seed(0)
    diagram = RECORD[record](Model())
    with pytest.raises(CircuitError, match=reason):
        diagram(X)


def test_a_look_for_a_generator_keeps_no_tensor_of_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a frame of Python shows of its variables lives as long as the frame, here that of `trace`."""
    found: list[Any] = []
    monkeypatch.setattr(leaks, "_remove", lambda fake: found.append(fake()) or [])
    trace(Made(), X)
    assert not found
