"""The two layers of a transformer, by the name that they had in one file: see `encoder_layer` and `decoder_layer`."""

from .decoder_layer import DecoderLayer
from .encoder_layer import EncoderLayer, LayerOptions
from .parts.cache import DecoderCache

__all__ = ["DecoderCache", "DecoderLayer", "EncoderLayer", "LayerOptions"]
