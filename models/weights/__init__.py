"""Weights: saving to a safetensors file and loading, conversion from other libraries, and messages if they do not fit.

These modules import only the public names of `circuits`. Start with `files` (`save`, `load`, `savable`). `atomic`
writes a file completely or not at all, `saved_file` reads what a file holds, `configuration` writes constructor
arguments as text, `errors` has the message for weights that do not fit, `from_torch` the constructor arguments of a
copy of torch's module, which `torch_conversions` makes, `from_vision_peers` and `from_language_peers` the names of
weights in timm and transformers, which `renaming` applies, `vision_settings` and `activations` what those weights do
not say, `vision_conversions` and `language_conversions` the methods of VisionTransformer and LanguageModel that use
them. `sources` reads weights from modules and files, and `classifier` replaces the head of a model.
"""

from .errors import WeightsError
from .files import load, savable, save

__all__ = ["WeightsError", "load", "savable", "save"]
