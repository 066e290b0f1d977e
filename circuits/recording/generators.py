"""The random number generators that the calls of a run draw from.

A diagram draws from the same generators as the recorded run. torch's function modes see neither the construction of a
`torch.Generator` nor its methods, so a generator that the run makes or seeds would be neither in a diagram, which then
refuses to run. So it does where the code names a method that seeds a generator, which may be called with the very
state that the generator has. The functions of the default generators are recorded, their methods
(`torch.default_generator.manual_seed`) are not. A run that draws from other generators, those of `plain_random`, has
numbers that a diagram does not draw, and is refused too.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from circuits.recording.events import Record
from circuits.recording.plain_random import plain_states, state_of_object
from circuits.recording.snapshot import are_equal_states, state_of_generator
from circuits.recording.user_frames import is_user_file, user_line


class Generators:
    """The state of each generator of one run after the last call that drew from it.

    Args:
        record: The record of the run, whose snapshot has the states before the run.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self._states: dict[int, tuple[torch.Generator, torch.Tensor]] = {}
        self._plain_states: dict[str, Any] = {}
        self._seeds: list[int] = []

    def start(self) -> None:
        """Store the states where the run begins."""
        self._states.clear()
        self._plain_states = plain_states()
        self._seeds = _default_seeds()

    def note_seeds(self) -> None:
        """Note that a recorded call has set the state of the default generators."""
        self._seeds = _default_seeds()

    def unrecorded(self) -> str:
        """Return what the run has done with generators that a diagram would not do; empty if nothing."""
        now, before = plain_states(), self._plain_states
        drawn = [name for name, state in before.items() if now[name] != state]
        held = self.record.snapshot.plain_generators
        drawn += [type(value).__name__ for value, state in held.values() if state_of_object(value) != state]
        if drawn:
            return (
                f"the run draws random numbers from {drawn[0]}, which a diagram would hold as constants: draw them by "
                "torch (torch.rand), or pass them as arguments"
            )
        if any(seed != old for seed, old in zip(_default_seeds(), self._seeds, strict=False)):
            return (
                "the run seeds a default generator by a function that is not recorded: use torch.manual_seed, "
                "torch.seed or torch.set_rng_state"
            )
        return ""

    def watching(self, kwargs: dict[str, Any], run: Callable[[], Any]) -> Callable[[], Any]:
        """Return `run`; if its call has a generator, with a check before it, and the state stored after it."""
        generator = kwargs.get("generator")
        if (
            generator is None
            or generator is torch.default_generator
            or any(generator is each for each in torch.cuda.default_generators)
        ):
            return run

        def watched() -> Any:
            self._check(generator)
            result = run()
            self._states[id(generator)] = generator, state_of_generator(generator)
            return result

        return watched

    def _check(self, generator: torch.Generator) -> None:
        """Set the `refusal` of the record if the run has made or seeded a generator."""
        if self.record.scopes.seeding:
            self.record.refusal = (
                f"the call at {user_line()} draws from a torch.Generator, and the code at {self.record.scopes.seeding} "
                "sets the state of one, which is not recorded: seed it before the run, or use torch.manual_seed and "
                "the default generator"
            )
        known = self._states.get(id(generator)) or self.record.snapshot.generators.get(id(generator))
        if known is None and not _is_global(generator):
            self.record.refusal = (
                f"the call at {user_line()} draws from a torch.Generator that the run made, or that was not found "
                "before the run: pass it as an argument, or keep it in the module or in a global"
            )
        elif known is not None and not are_equal_states(known[1], state_of_generator(generator)):
            self.record.refusal = (
                f"the call at {user_line()} draws from a torch.Generator whose state the run has set, which is not "
                "recorded: seed it before the run, or use torch.manual_seed and the default generator"
            )


def _default_seeds() -> list[int]:
    """Return the seed of torch's default generator, and of those of CUDA once it is initialized."""
    return [each.initial_seed() for each in (torch.default_generator, *torch.cuda.default_generators)]


def _is_global(generator: torch.Generator) -> bool:
    """Return whether a generator is a global of the running code, or an attribute of the class of a method's object."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        # Reading `f_locals` lets a frame hold its variables until it ends, so that of `trace` must not be read.
        if is_user_file(frame.f_code.co_filename):
            kinds = type(frame.f_locals.get("self")).__mro__
            if any(each is generator for held in (frame.f_globals, *map(vars, kinds)) for each in list(held.values())):
                return True
        frame = frame.f_back
    return False
