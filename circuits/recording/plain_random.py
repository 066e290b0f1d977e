"""The state of random number generators other than torch's: of Python's `random` and of numpy.

A diagram cannot draw from them, and would hold the numbers of the recorded run as constants. A generator that the run
makes without a seed leaves no trace in this state, and is not noticed.
"""

import pickle
import random
import sys
from typing import Any


def plain_states() -> dict[str, Any]:
    """Return the state of the generator of Python's `random`, and of that of `numpy.random` if it is loaded."""
    found: dict[str, Any] = {"Python's random": random.getstate()}
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return found
    state = numpy.get_state(legacy=False)
    inner = {key: value.tobytes() if hasattr(value, "tobytes") else value for key, value in state["state"].items()}
    return found | {"numpy.random": state | {"state": inner}}


def restore_state_of_object(value: Any, state: bytes) -> None:
    """Set the state of a generator object back to that which `state_of_object` returned."""
    if state_of_object(value) == state:
        return
    if isinstance(value, random.Random):
        value.setstate(pickle.loads(state))
    elif hasattr(value, "bit_generator"):
        value.bit_generator.state = pickle.loads(state)
    else:
        value.set_state(pickle.loads(state))


def state_of_object(value: Any) -> bytes | None:
    """Return the state of a generator object of `random` or numpy; None for any other object."""
    kind, numpy = type(value), sys.modules.get("numpy.random")
    if issubclass(kind, random.Random):
        return None if issubclass(kind, random.SystemRandom) else pickle.dumps(value.getstate())
    if numpy is not None and issubclass(kind, numpy.Generator):
        return pickle.dumps(value.bit_generator.state)
    return pickle.dumps(value.get_state()) if numpy is not None and issubclass(kind, numpy.RandomState) else None
