"""Neural circuit diagrams as modules: one figure of the paper a file, each readable beside its figure.

Every model takes `device=` and `dtype=` when it is made, checks its inputs by its signature when it is called, and is
an ordinary `nn.Module`. A classifier's `forward` is its whole figure, ending in probabilities; its `logits` stops
before the softmax, which is what a loss wants. `save` writes a model to a file, and `load` makes it again.
"""

from models.attention import MultiHeadAttention
from models.conv_attention import ConvAttention
from models.convolution import Convolution, SeparableConvolution, TransposedConvolution
from models.language_model import LanguageModel
from models.mismatch import WeightsError
from models.mlp import MLP
from models.pooling import max_pool_over, mean_pool_over
from models.resnet import IdentityResNet
from models.sequence_to_sequence import SequenceToSequence
from models.transformer import Transformer
from models.unet import UNet
from models.vision_transformer import VisionTransformer
from models.visual_attention import VisualAttention
from models.weights import load, savable, save

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
