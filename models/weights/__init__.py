"""Weights: written to one safetensors file and read back, taken from other libraries, refused where they do not fit.

May use the face of `circuits`. Start with `files` (`save`, `load`, `savable`); `configuration` is constructor
arguments as text, `errors` the message where weights do not fit, `from_torch` and `from_vision_peers` what other
libraries' weights are called.
"""

from .errors import WeightsError
from .files import load, savable, save

__all__ = ["WeightsError", "load", "savable", "save"]
