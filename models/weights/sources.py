"""Where the weights of another library come from: a module, a state dict, or files that are read without unpickling.

Files are a safetensors file, an index of several (`model.safetensors.index.json`), or a folder with either and with a
`config.json`, as transformers saves a model. Nothing in them is executed; pickled weights are never opened. Start with
`read`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from circuits import CircuitError

from .atomic import refuse_unless_file
from .errors import WeightsError, pickled_hint, without_prefix

Weights = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
"""What the methods that take weights of another library accept."""

INDEX = ".index.json"


class Source(NamedTuple):
    """The weights by name, the configuration and the module if there are any, and the mode (training or not)."""

    state: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    module: nn.Module | None
    training: bool


def read(name: str, weights: Weights, config: Any = None, prefix: str = "") -> Source:
    """Return the weights and the configuration of a model.

    Args:
        name: Name of the calling method, with which error messages begin.
        weights: The module, its state dict, or the path of a file or of a folder.
        config: The configuration, as the object of transformers or as the mapping in `config.json`; by default that of
            the module, or the file `config.json` in the folder.
        prefix: Text with which every name begins, and which is removed.

    Raises:
        CircuitError: if there are no weights of these kinds, or a file is incomplete.
        WeightsError: if a name does not begin with the prefix.
        FileNotFoundError: if there is no such file or folder.
    """
    module = None
    if isinstance(weights, nn.Module):
        module = _inner(name, weights, prefix)
        state, found = module.state_dict(), getattr(module, "config", None)
    elif isinstance(weights, Mapping):
        state, found = _stripped(name, weights, prefix), None
    elif isinstance(weights, str | os.PathLike):
        path = Path(weights)
        state, found = _stripped(name, read_state(path), prefix), _config_beside(path)
    else:
        raise CircuitError(f"{name} takes a module, a state dict or a path, not a {type(weights).__name__}")
    found = found if config is None else config
    return Source(state, _as_mapping(name, found), module, module is None or module.training)


def _inner(name: str, module: nn.Module, prefix: str) -> nn.Module:
    """Return the submodule at the prefix: the model inside `torch.compile` or nn.DataParallel."""
    try:
        return module.get_submodule(prefix.removesuffix("."))
    except AttributeError:
        raise CircuitError(f'{name}: the {type(module).__name__} has no submodule at prefix="{prefix}"') from None


def _stripped(name: str, state: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Return a state dict without the prefix of its names; raise WeightsError if one does not begin with it."""
    try:
        return without_prefix(state, prefix) if prefix else state
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from None


def _as_mapping(name: str, config: Any) -> Mapping[str, Any] | None:
    """Return a configuration as a mapping."""
    if config is None or isinstance(config, Mapping):
        return config
    to_dict = getattr(config, "to_dict", None)
    if to_dict is None:
        raise CircuitError(
            f"{name}: config may be that of transformers or the mapping in config.json, not {config!r:.60}"
        )
    return to_dict()


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name of a safetensors file, of an index of several files, or of a folder with either."""
    if path.is_dir():
        path = _weights_in(path)
    if not path.name.endswith(INDEX):
        return _tensors(path)
    shards = _json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(each, str) for each in shards.values()):
        raise CircuitError(f"{path} is not an index of safetensors files: it has no weight_map")
    state: dict[str, Tensor] = {}
    for shard in dict.fromkeys(shards.values()):
        if Path(shard).name != shard:
            raise CircuitError(f"{path} refers to {shard}, which is not a file in its folder")
        if not (path.parent / shard).exists():
            raise CircuitError(f"{path} refers to {shard}, and there is no such file in its folder")
        state |= _tensors(path.parent / shard)
    lost = [name for name in shards if name not in state]
    if lost:
        raise CircuitError(f"{path} refers to {lost[0]} in {shards[lost[0]]}, which is not there")
    return state


def _weights_in(folder: Path) -> Path:
    """Return the one safetensors file of a folder, or the index of several; raise CircuitError if there is none."""
    names = sorted(each.name for each in folder.iterdir())
    found = [each for each in names if each.endswith(".safetensors" + INDEX)]
    found = found or [each for each in names if each.endswith(".safetensors")]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CircuitError(f"{folder} has several files of weights, {', '.join(found[:6])}; give the path of one")
    pickled = [each for each in names if each.endswith((".bin", ".pt", ".pth"))]
    also = f"; {pickled[0]} is pickled, and never opened: convert it to safetensors" if pickled else ""
    raise CircuitError(f"{folder} has no safetensors file, and no index of several{also}")


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one safetensors file."""
    refuse_unless_file(path, "")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CircuitError(f"{path} is not a complete safetensors file{pickled_hint(path)}: {error}") from error


def refuse_shards(path: Path) -> None:
    """Raise CircuitError for a folder, or an index of several files, in place of the one that `models.save` writes."""
    if path.is_dir() or path.name.endswith(INDEX):
        kind = "not a file but a folder" if path.is_dir() else "not a file of weights but an index of several"
        raise CircuitError(
            f"{path} is {kind}; models.load reads one file, which models.save wrote; from_huggingface, of LanguageModel"
            " and VisionTransformer, reads folders and indexes of transformers"
        )


def _config_beside(path: Path) -> Mapping[str, Any] | None:
    """Return the mapping in the `config.json` of a folder, or of the folder of a file; None if there is none."""
    beside = (path if path.is_dir() else path.parent) / "config.json"
    return _json(beside) if beside.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CircuitError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CircuitError(f"{path} is not a mapping but {data!r:.60}")
    return data
