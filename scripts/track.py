"""Print the table of a model: `python -m scripts.track attention y=20`, `python -m scripts.track torch.nn:LSTM ...`.

Nothing is computed: the model is traced. Sizes of axes that are not given stay symbolic. The arguments are those of
`python -m circuits`, and a model of the zoo has a short name and default arguments.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from circuits import Diagram
from circuits.commands.diagrams import diagram_of
from circuits.commands.reports import UsageError, reported

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
    """The diagram of a zoo model, or of a TARGET; settings take the place of the default ones."""
    if name not in ZOO and not {*":."} & {*name}:
        raise UsageError(f"no model is called {name}: there are {', '.join(ZOO)}, or give package.module:Class")
    target, *defaults = ZOO.get(name, (name,))
    given = {word.partition("=")[0] for word in words}
    return diagram_of(target, [*[word for word in defaults if word.partition("=")[0] not in given], *words])


def main(
    target: Annotated[str, typer.Argument(help=f"{', '.join(ZOO)}, or package.module:Class")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="arguments of the class, sizes of axes, axes='b c h w'")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="How many levels of nested boxes to show.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole diagram as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
) -> None:
    """Print the table of a model, without running it."""
    with reported():
        diagram = diagram_of_zoo(target, settings or ())
    if as_json:
        typer.echo(json.dumps(diagram.to_dict(), indent=1))
    else:
        typer.echo(diagram.to_markdown(depth) if markdown else diagram.table(depth))


if __name__ == "__main__":
    typer.run(main)
