"""What a TARGET and its KEY=VALUE arguments ask for, and its diagram, which every command shows in its own way."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from circuits.commands.reports import UsageError
from circuits.commands.settings import Parameters, TraceArguments, parameters_of, parse_settings, trace_arguments
from circuits.commands.targets import FORMS, Target, attribute, find_target, makes_model
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.recording import trace

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help=f"A circuit, an nn.Module or its class, or a function: {FORMS}. Attributes may follow: MLP.probabilities.",
    ),
]
SettingsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Arguments of the class; sizes of axes; axes='b c h w, b m' or input_size='(8, 3, 32, 32)' where no"
        " signature says them; and arguments of the call that are no tensors.",
    ),
]


class Request(NamedTuple):
    """What a command is asked to show: a circuit, module, function or LinearMap, and how it is traced."""

    target: str
    function: Any
    arguments: TraceArguments

    def diagram(self) -> Diagram:
        """Return the diagram, traced without computing anything.

        Raises:
            CircuitError: The traced code raises.
        """
        axes, sizes, call = self.arguments
        try:
            return trace(self.function, axes=axes, sizes=sizes, **call)
        except Exception as error:
            raise _failed(f"{self.target} cannot be traced", error) from error


def request_of(target: str, words: Sequence[str]) -> Request:
    """Return what a TARGET and settings name; a class is called.

    Args:
        target: The TARGET, as `find_target` reads it. A class is called with those settings that are its arguments.
        words: The settings, `KEY=VALUE`. Those that are no arguments of the class are for `trace`.

    Raises:
        UsageError: The target or a setting is unknown, or an argument of the class is missing.
        CircuitError: The class raises.
    """
    found, settings = find_target(target), parse_settings(words)
    function, taken = found.found, ()
    if makes_model(function):
        parameters = parameters_of(function)
        taken = parameters.names
        own = _arguments_of_class(parameters, settings)
        settings = {name: value for name, value in settings.items() if name not in own}
        function = _made(found, parameters, own)
    for name in found.attributes:
        function = attribute(function, name, target)
    if not callable(function):
        raise UsageError(f"{target} is of type {type(function).__name__}: no circuit, module or function")
    return Request(target, function, trace_arguments(target, function, settings, taken))


def diagram_of(target: str, words: Sequence[str]) -> Diagram:
    """Return the diagram of what a TARGET and settings name; the errors are those of `request_of` and of the trace."""
    return request_of(target, words).diagram()


def _arguments_of_class(parameters: Parameters, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are arguments of a class; one with `**kwargs` takes all that are not for the inputs."""
    if parameters.open:
        return {
            name: value for name, value in settings.items() if name not in {"axes", "input_size"} - {*parameters.names}
        }
    return {name: value for name, value in settings.items() if name in parameters.names}


def _made(target: Target, parameters: Parameters, arguments: dict[str, Any]) -> Any:
    """Call a class or function for the model."""
    missing = [name for name in parameters.required if name not in arguments]
    if missing:
        known = [name for name in parameters.names if name not in missing]
        others = f"; it takes {', '.join(known)} too" if known else ""
        raise UsageError(f"{target.text} needs {' '.join([f'{name}=...' for name in missing])}{others}")
    positional = [arguments.pop(name) for name in parameters.positional if name in arguments]
    try:
        return target.found(*positional, **arguments)
    except Exception as error:
        raise _failed(f"{target.text} cannot be made", error) from error


def _failed(said: str, error: Exception) -> CircuitError:
    """Return the error of other people's code, with its notes in the words of a command line."""
    kind = "" if isinstance(error, CircuitError) else f"{type(error).__name__}: "
    notes = [re.sub(r"trace\(\.\.\., sizes=\{.*\}\)", "KEY=VALUE", note) for note in getattr(error, "__notes__", ())]
    return CircuitError("\n".join([f"{said}: {kind}{error}", *notes]))


__all__ = ["Request", "SettingsArgument", "TargetArgument", "diagram_of", "request_of"]
