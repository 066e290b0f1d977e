"""What the weights of a vision transformer do not say: the grid of its patches, and settings of timm and transformers.

Positions are learned for one grid of patches, and resampled for another as in timm: by bicubic interpolation with
antialiasing, in float32; that of the class token is kept. Start with `grid_of`, `resampled` and `timm_settings`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, rearrange

from . import activations

Size = int | tuple[int, int]
"""Rows and columns, or one number for both."""


def pair(size: Any) -> tuple[int, int]:
    """Return rows and columns; raise CircuitError for what is neither a number nor a pair.

    >>> pair(16), pair((16, 24))
    ((16, 16), (16, 24))
    """
    try:
        rows, columns = (size, size) if hasattr(size, "__index__") else size
    except (TypeError, ValueError):
        raise CircuitError(f"a size may be a whole number, or rows and columns, not {size!r:.60}") from None
    return rows, columns


def grid_of(
    name: str, x: int, class_token: bool, patch: tuple[int, int], image_size: Size | None, trained_size: Size | None
) -> tuple[int, int]:
    """Return the rows and columns of the patches that learned positions are for.

    Args:
        name: Name of the calling method, with which error messages begin.
        x: Number of positions.
        class_token: Whether one of them is that of the class token.
        patch: Rows and columns of a patch.
        image_size: Size of the images of the model to make.
        trained_size: Size of the images that the positions were learned for, if known.

    Raises:
        CircuitError: if there is no position for the class token, or the grid does not follow from the arguments.
    """
    patches, side = x - class_token, math.isqrt(x - class_token)
    wanted = None if image_size is None else _grid(name, image_size, patch)
    if trained_size is not None:
        grid = _grid(name, trained_size, patch)
        if math.prod(grid) == patches:
            return grid
        _refuse_no_position(name, class_token and math.prod(grid) == x)
        count = math.prod(grid)
        raise CircuitError(f"{name}: an image of {trained_size} has {count} patches; the weights are for {patches}")
    if side * side != patches:
        _refuse_no_position(name, class_token and wanted is not None and math.prod(wanted) == x)
        also = f", unless they are for {patches} patches: give trained_size=(rows, columns)"
        _refuse_no_position(name, class_token and math.isqrt(x) ** 2 == x, also)
        if wanted is not None and math.prod(wanted) == patches:
            return wanted
        raise CircuitError(
            f"{name}: {patches} patches do not form a square; give image_size=(rows, columns), or trained_size if it is"
            " another"
        )
    if wanted not in (None, (side, side)) and math.prod(wanted) == patches:
        raise CircuitError(
            f"{name}: {patches} patches may be a {side} by {side} grid, or the {wanted[0]} by {wanted[1]} one of"
            " image_size; give trained_size=(rows, columns), the size of the images that the weights are for"
        )
    return side, side


def _refuse_no_position(name: str, refused: bool, also: str = "") -> None:
    """Raise CircuitError, if `refused`, for positions of which none is the class token's."""
    if refused:
        raise CircuitError(
            f"{name}: the weights have no position for the class token (timm's no_embed_class), which has no equal"
            f" here{also}"
        )


def _grid(name: str, size: Size, patch: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of patches of an image; raise CircuitError if they do not fill it."""
    rows, columns = pair(size)
    if rows % patch[0] or columns % patch[1]:
        raise CircuitError(f"{name}: patches {patch[0]} by {patch[1]} do not fill images of {rows} by {columns}")
    return rows // patch[0], columns // patch[1]


@torch.no_grad()
def resampled(positions: Tensor, grid: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return positions `x m` of a grid of patches for another grid; any before those of the grid are kept."""
    if grid == new:
        return positions
    kept = len(positions) - math.prod(grid)
    image = rearrange(positions[kept:].float(), "(i j) m -> 1 m i j", i=grid[0])
    image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
    return torch.cat((positions[:kept], rearrange(image, "1 m i j -> (i j) m").to(positions.dtype)))


def timm_settings(name: str, theirs: nn.Module) -> dict[str, Any]:
    """Return `trained_size`, `k` and options of a VisionTransformer equal to timm's model.

    Raises CircuitError, which begins with `name`, if a setting has no equal here.
    """
    kinds: list[tuple[Any, str]] = [(theirs, "VisionTransformer")]
    model: Any = theirs
    if type(theirs).__name__ == "VisionTransformer":
        kinds += [(model.patch_embed, "PatchEmbed"), *((each, "Block") for each in model.blocks)]
        kinds += [(part, kind) for each in model.blocks for part, kind in ((each.attn, "Attention"), (each.mlp, "Mlp"))]
    for part, kind in kinds:
        if type(part).__name__ != kind:
            raise CircuitError(f"{name}: the model there has a {type(part).__name__}, which may be timm's {kind} here")
    settings = {each: getattr(model, each, None) for each in ("global_pool", "no_embed_class")}
    refuse_timm_settings(name, settings, model.cls_token is not None)
    layer = model.blocks[0]
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    if len({each.eps for each in norms}) > 1:
        raise CircuitError(f"{name}: norms there add several numbers to the variance; here one eps")
    try:
        activation = activations.like(layer.mlp.act)
    except CircuitError as error:
        raise CircuitError(f"{name}: {error}") from None
    eps = {"eps": norms[0].eps} if norms else {}
    return {"trained_size": pair(model.patch_embed.img_size), "k": layer.attn.head_dim, "activation": activation, **eps}


def refuse_timm_settings(name: str, settings: Mapping[str, Any], class_token: bool) -> None:
    """Raise CircuitError for settings of timm that change the outputs and not the names of weights."""
    _refuse_no_position(name, bool(class_token and settings.get("no_embed_class")))
    pool, here = settings.get("global_pool"), "token" if class_token else "avg"
    if pool is not None and pool != here:
        token = "a" if class_token else "no"
        raise CircuitError(f"{name}: global_pool is {pool!r}; of a model with {token} class token it may be {here!r}")


def hugging_face_settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `trained_size`, `k` and options of a VisionTransformer equal to transformers' model of a configuration.

    Raises CircuitError, which begins with `name`, if a setting has no equal here.
    """
    if config.get("model_type") != "vit":
        raise CircuitError(f"{name}: model_type is {config.get('model_type')!s:.60}; it may be vit")
    try:
        activation = activations.by_name(config.get("hidden_act", "gelu"))
        h, m, size = config["num_attention_heads"], config["hidden_size"], config["image_size"]
    except CircuitError as error:
        raise CircuitError(f"{name}: {error}") from None
    except KeyError as missing:
        raise CircuitError(f"{name}: the configuration has no {missing.args[0]}") from None
    found = {"trained_size": pair(size), "k": config.get("head_dim") or m // h}
    return {**found, "eps": config.get("layer_norm_eps", 1e-12), "activation": activation}
