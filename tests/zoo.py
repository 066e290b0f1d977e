"""The models of the zoo with default arguments, for tests that go through them all by name."""

from collections.abc import Mapping, Sequence

from circuits import Diagram
from circuits.commands.diagrams import diagram_of

ZOO: Mapping[str, tuple[str, ...]] = {
    "mlp": ("models.mlp:MLP.probabilities",),
    "attention": ("models.attention:MultiHeadAttention", "m=128", "k=16", "h=4"),
    "scaled_dot_product_attention": ("models.scaled_dot_product:attention",),
    "encoder_layer": ("models.encoder_layer:EncoderLayer", "m=512", "k=64", "h=8", "f=2048"),
    "decoder_layer": ("models.decoder_layer:DecoderLayer", "m=512", "k=64", "h=8", "f=2048"),
    "transformer": ("models.transformer:Transformer",),
    "sequence_to_sequence": ("models.sequence_to_sequence:SequenceToSequence.probabilities", "vocabulary=37000"),
    "language_model": (
        "models.language_model:LanguageModel.probabilities",
        *("vocabulary=256", "m=384", "k=64", "h=6", "f=1536", "depth=6"),
    ),
    "resnet": ("models.resnet:IdentityResNet.probabilities",),
    "unet": ("models.unet:UNet",),
    "visual_attention": (
        "models.visual_attention:VisualAttention",
        *("c=33", "k=8", "heads=4", "kernel=3", "stride=3"),
    ),
    "vision_transformer": ("models.vision_transformer:VisionTransformer",),
    "conv_attention": ("models.conv_attention:ConvAttention",),
    "convolution": (
        "models.convolution:Convolution",
        *("text=c h w -> k h' w'", "c=3", "k=16", "kernel=3", "stride=2", "padding=1"),
    ),
}
"""For each name the TARGET and default settings. A figure that ends with a softmax is `probabilities`."""


def diagram_of_zoo(name: str, words: Sequence[str]) -> Diagram:
    """The diagram of a zoo model; settings take the place of the default ones."""
    target, *defaults = ZOO[name]
    given = {word.partition("=")[0] for word in words}
    return diagram_of(target, [*[word for word in defaults if word.partition("=")[0] not in given], *words])
