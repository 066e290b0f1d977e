"""Neural circuit diagrams as modules: one figure of the paper a file, each readable beside its figure.

Every model takes `device=` and `dtype=` when it is made, checks its inputs by its signature when it is called, and is
an ordinary `nn.Module`. A classifier's `forward` is its whole figure, ending in probabilities; its `logits` stops
before the softmax, which is what a loss wants. `save` writes a model to a file, and `load` makes it again.
"""

import sys

from .attention import MultiHeadAttention
from .conv_attention import ConvAttention
from .convolution import Convolution, SeparableConvolution, TransposedConvolution
from .language_model import LanguageModel
from .mlp import MLP
from .parts.pooling import max_pool_over, mean_pool_over
from .resnet import IdentityResNet
from .sequence_to_sequence import SequenceToSequence
from .transformer import Transformer
from .unet import UNet
from .vision_transformer import VisionTransformer
from .visual_attention import VisualAttention
from .weights.errors import WeightsError
from .weights.files import load, savable, save

__all__ = [
    "MLP",
    "ConvAttention",
    "Convolution",
    "IdentityResNet",
    "LanguageModel",
    "MultiHeadAttention",
    "SeparableConvolution",
    "SequenceToSequence",
    "Transformer",
    "TransposedConvolution",
    "UNet",
    "VisionTransformer",
    "VisualAttention",
    "WeightsError",
    "load",
    "max_pool_over",
    "mean_pool_over",
    "savable",
    "save",
]

_FORMER = {
    "arguments": "weights.configuration",
    "cache": "parts.cache",
    "convolving": "parts.convolve",
    "fused": "parts.fused_attention",
    "generation": "parts.generation",
    "masks": "parts.masks",
    "mismatch": "weights.errors",
    "pooling": "parts.pooling",
    "positions": "parts.positions",
    "space": "parts.space",
}
"""Former names of modules, and their names today: files pickled then name the former."""

for _former, _now in _FORMER.items():
    sys.modules[f"{__name__}.{_former}"] = sys.modules[f"{__name__}.{_now}"]
