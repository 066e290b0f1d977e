"""Models of the paper's figures as PyTorch modules: one figure a file, to be read beside the figure.

Every model takes `device=` and `dtype=` in its constructor, checks its inputs against its signature on every call, and
is an ordinary `nn.Module`. The `forward` of every classifier and language model returns logits, which loss functions
such as `F.cross_entropy` take. Where the figure ends with a softmax, the whole figure is the circuit `probabilities`
(MLP, IdentityResNet, LanguageModel, SequenceToSequence). The `forward` of ConvAttention returns the loss with which its
example ends. `save` writes a model to a file, and `load` returns a model equal to the saved one.
"""

import sys

import circuits

if not hasattr(circuits, "find_circuit"):
    raise ImportError(
        f"models: {circuits} is of another distribution, `circuits`; uninstall that, then install"
        " neural-circuit-diagrams again"
    )

from circuits import models as _models  # this folder, loaded under the name that its modules have

if _models.__name__ != __name__:  # it was found as `models`: the name of the same modules
    for _name in [name for name in sys.modules if f"{name}.".startswith(f"{_models.__name__}.")]:
        sys.modules[_name.removeprefix("circuits.")] = sys.modules[_name]

from .attention import MultiHeadAttention
from .conv_attention import ConvAttention
from .convolution import Convolution, SeparableConvolution, TransposedConvolution
from .language_model import LanguageModel
from .mlp import MLP
from .parts.pooling import max_pool_over, mean_pool_over
from .resnet import IdentityResNet
from .sequence_to_sequence import SequenceToSequence
from .transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer
from .unet import UNet
from .vision_transformer import VisionTransformer
from .visual_attention import VisualAttention
from .weights.errors import WeightsError, without_prefix
from .weights.files import load, savable, save

__all__ = [
    "MLP",
    "ConvAttention",
    "Convolution",
    "Decoder",
    "DecoderLayer",
    "Encoder",
    "EncoderLayer",
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
    "without_prefix",
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
"""Former names of modules, with the present ones: files that were pickled with a former name can still be loaded."""

for _former, _now in _FORMER.items():
    sys.modules[f"circuits.models.{_former}"] = sys.modules[f"circuits.models.{_now}"]
