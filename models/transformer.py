"""The transformer.

Source: Vaswani et al. 2017, Attention Is All You Need.
"""

from models.transformer_layers import EncoderLayer

__all__ = ["EncoderLayer"]
