"""Print the table of a model: `python -m scripts.track attention y=20`, `python -m scripts.track torch.nn:LSTM ...`.

Nothing is computed: the model is traced. Sizes of axes that are not given stay symbolic.
"""

import ast
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from torch import nn

from circuits import CircuitError, Diagram, find_circuit, trace
from models.attention import MultiHeadAttention, attention
from models.conv_attention import ConvAttention
from models.convolution import Convolution
from models.language_model import LanguageModel
from models.mlp import MLP
from models.resnet import IdentityResNet
from models.sequence_to_sequence import SequenceToSequence
from models.transformer import DecoderLayer, EncoderLayer, Transformer
from models.unet import UNet
from models.vision_transformer import VisionTransformer
from models.visual_attention import VisualAttention


def _convolution(c: int = 3, k: int = 16, kernel: int = 3, stride: int = 2, padding: int = 1) -> Convolution:
    """A convolution of images."""
    return Convolution("c h w -> k h' w'", c=c, k=k, kernel=kernel, stride=stride, padding=padding)


ZOO: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "mlp": (MLP, {}),
    "attention": (MultiHeadAttention, {"m": 128, "k": 16, "h": 4}),
    "scaled_dot_product_attention": (lambda: attention, {}),
    "encoder_layer": (EncoderLayer, {"m": 512, "k": 64, "h": 8, "f": 2048}),
    "decoder_layer": (DecoderLayer, {"m": 512, "k": 64, "h": 8, "f": 2048}),
    "transformer": (Transformer, {}),
    "sequence_to_sequence": (SequenceToSequence, {"vocabulary": 37000}),
    "language_model": (LanguageModel, {"vocabulary": 256, "m": 384, "k": 64, "h": 6, "f": 1536, "depth": 6}),
    "resnet": (IdentityResNet, {}),
    "unet": (UNet, {}),
    "visual_attention": (VisualAttention, {"c": 33, "k": 8, "heads": 4, "kernel": 3, "stride": 3}),
    "vision_transformer": (VisionTransformer, {}),
    "conv_attention": (ConvAttention, {}),
    "convolution": (_convolution, {}),
}
"""For each name the class or function that makes the model, and default arguments."""


def diagram_of(target: str, settings: Mapping[str, Any]) -> Diagram:
    """The diagram of a zoo model or of `package.module:Name` (a class, a circuit, or a module instance).

    Settings that are parameters of the class are passed to it; `axes` names the axes of a model without a signature;
    the others are sizes of axes. Raises CircuitError for an unknown name, and for a setting that is none of these.
    """
    make, arguments = ZOO[target] if target in ZOO else (_found(target), {})
    taken = _parameters(make)
    arguments = {**arguments, **{name: value for name, value in settings.items() if name in taken}}
    rest = {name: value for name, value in settings.items() if name not in taken}
    axes = rest.pop("axes", None)
    model = _made(target, make, arguments)
    circuit = find_circuit(model)
    wrong = [name for name, value in rest.items() if not isinstance(value, int)]
    if wrong:
        known = ", ".join([*taken, *(circuit.signature.names if circuit is not None else ())]) or "none"
        raise CircuitError(
            f"{', '.join(wrong)}: neither an argument of {target} nor the size of an axis; it has {known}"
        )
    return trace(_figure(model) if target in ZOO else model, sizes=rest, axes=axes)


def _figure(model: Any) -> Any:
    """What is traced of a zoo model: `probabilities` where its figure ends with a softmax, otherwise `forward`."""
    return getattr(model, "probabilities", model)


def _made(target: str, make: Any, arguments: Mapping[str, Any]) -> Any:
    """The model made with these arguments; a circuit or a module instance is returned as it is."""
    if isinstance(make, nn.Module) or find_circuit(make) is not None:
        return make
    try:
        return make(**arguments)
    except TypeError as error:
        raise CircuitError(f"{target} cannot be made: {error}; give its arguments as name=value") from error


def _found(target: str) -> Any:
    """The object named by `package.module:Name`."""
    place, _, name = target.partition(":")
    if not name:
        raise CircuitError(f"no model is called {target}: there are {', '.join(ZOO)}, or give package.module:Class")
    try:
        return getattr(importlib.import_module(place), name)
    except ImportError as error:
        raise CircuitError(f"{place} cannot be imported: {error}") from error
    except AttributeError as error:
        raise CircuitError(f"{place} has no {name}") from error


def _parameters(make: Any) -> list[str]:
    """The parameters of a constructor; with `**kwargs`, those of the base classes too."""
    if isinstance(make, nn.Module) or find_circuit(make) is not None:
        return []
    makers = [base.__init__ for base in make.__mro__[:-1]] if inspect.isclass(make) else [make]
    names = []
    for maker in makers:
        parameters = list(inspect.signature(maker).parameters.values())
        names += [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return [name for name in dict.fromkeys(names) if name != "self"]


def _setting(word: str) -> tuple[str, Any]:
    """`y=20` as a name and a Python value; a text that is no Python literal stays text."""
    name, equals, text = word.partition("=")
    if not (name and equals):
        raise CircuitError(f"{word} is not name=value")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


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
    try:
        diagram = diagram_of(target, dict([_setting(word) for word in settings or []]))
    except CircuitError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(diagram.to_dict(), indent=1))
    else:
        typer.echo(diagram.to_markdown(depth) if markdown else diagram.table(depth))


if __name__ == "__main__":
    typer.run(main)
