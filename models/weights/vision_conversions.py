"""Conversion of a VisionTransformer from and to the weights of timm and of Hugging Face's transformers.

The names and axes of those weights are in `from_vision_peers`, their settings and the grid of patches in
`vision_settings`, and the reading of modules and files in `sources`.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from circuits import CircuitError

from . import from_vision_peers, renaming, sources
from .classifier import Classifier
from .configuration import change_arguments
from .vision_settings import Size, grid_of, hugging_face_settings, pair, refuse_timm_settings, resampled, timm_settings


class VisionTransformerConversions(Classifier):
    """The methods of VisionTransformer that convert its weights; no other class inherits from this one."""

    _standard_widths: ClassVar[Mapping[int, int]]
    """The width k of a head in each standard size, by the width m of its vectors."""

    c: int
    p: int
    q: int
    i: int
    j: int
    n: int
    x: int
    class_token: nn.Parameter | None
    positions: nn.Parameter
    layers: nn.ModuleList
    head: nn.Linear

    @classmethod
    def from_timm(
        cls,
        weights: sources.Weights,
        *,
        image_size: Size | None = None,
        trained_size: Size | None = None,
        k: int | None = None,
        classes: int | None = None,
        prefix: str = "",
        **options: Any,
    ) -> Self:
        """Return a model with the weights, and so the logits, of timm's VisionTransformer.

        All sizes except `trained_size` and `k` are read from the tensors, and these two from a module. A model without
        a class token is one that timm builds with `class_token=False, global_pool="avg"`, whose norm follows the mean
        over the patches. Give the module rather than its state dict, if possible: settings that change the outputs but
        not the names of weights, such as `no_embed_class` or another activation, are known from the module alone.

        Args:
            weights: timm's model, its `state_dict()`, or the path of a safetensors file, of an index of several, or of
                a folder with either.
            image_size: Rows and columns of an image, or one number for both; as `trained_size` unless given. For
                another size the positions are resampled, as by timm.
            trained_size: Size of the images that the weights are for; unless given, the images are square, or of
                `image_size` if the patches do not form a square.
            k: Width of a head. Unless given, that of the standard size (see `standard`) with the same width m.
            classes: If given, the head is replaced by one for this number of classes, initialized as 0.
            prefix: Text with which every name begins, such as "_orig_mod.", and which is removed.
            **options: Further arguments of the constructor: `dropout`, `activation`, `eps`.

        Raises:
            WeightsError: if weights are missing or unexpected, or have other axes; the message names them, and first
                the reason if it is known.
            CircuitError: if sizes cannot be inferred, or do not fit the weights, or a setting has no equal here.
        """
        name = "VisionTransformer.from_timm"
        source = sources.read(name, weights, prefix=prefix)
        settings: dict[str, Any] = {}
        if source.module is not None:
            settings = timm_settings(name, source.module)
        elif source.config is not None:
            given = {**source.config, **source.config.get("model_args", {})}
            refuse_timm_settings(name, given, "cls_token" in source.state)
        naming = from_vision_peers.timm_naming(source.state)
        read = from_vision_peers.read(name, naming, source.state, classes)
        return cls._from_weights(read, source.training, image_size, {**settings, **_given(trained_size, k), **options})

    @classmethod
    def from_huggingface(
        cls,
        weights: sources.Weights,
        *,
        config: Any = None,
        image_size: Size | None = None,
        trained_size: Size | None = None,
        k: int | None = None,
        classes: int | None = None,
        prefix: str = "",
        **options: Any,
    ) -> Self:
        """Return a model with the weights of transformers' ViTForImageClassification, or its ViTModel without a pooler.

        The names may be those of transformers 5 or of earlier versions.

        Args:
            weights: The model in transformers, its `state_dict()`, or the path of a folder with `config.json` and
                safetensors weights, in one file or in several with an index, or of such a file or index.
            config: The configuration, as in LanguageModel.from_huggingface; it is not needed.
            image_size: As in from_timm.
            trained_size: As in from_timm; as the configuration says unless given.
            k: As in from_timm; as the configuration says unless given.
            classes: As in from_timm.
            prefix: As in from_timm.
            **options: As in from_timm; `eps` and `activation` as the configuration says, and without one 1e-12 and
                nn.GELU, as in transformers.

        Raises:
            WeightsError: as from_timm does.
            CircuitError: as from_timm does.
        """
        name = "VisionTransformer.from_huggingface"
        source = sources.read(name, weights, config, prefix)
        settings = {} if source.config is None else hugging_face_settings(name, source.config)
        naming = from_vision_peers.hugging_face_naming(source.state)
        read = from_vision_peers.read(name, naming, source.state, classes)
        made = {"eps": 1e-12, **settings, **_given(trained_size, k), **options}
        return cls._from_weights(read, source.training, image_size, made)

    @classmethod
    def _from_weights(
        cls, weights: renaming.Weights, training: bool, image_size: Size | None, options: dict[str, Any]
    ) -> Self:
        """Return a model with the sizes of the weights, and with the weights."""
        name, sizes, positions = weights.name, weights.sizes, weights.tensors["positions"]
        class_token, patch = "class_token" in weights.tensors, (sizes["p"], sizes["q"])
        for given in options.keys() & _READ.keys():
            raise CircuitError(f"{name}: {given} is {_READ[given]}")
        k = options.pop("k", cls._standard_widths.get(sizes["m"]))
        if k is None or sizes["a"] % k:
            raise CircuitError(
                f"{name}: the width of a head does not follow from the weights; give k=, a divisor of {sizes['a']}"
            )
        grid = grid_of(name, sizes["x"], class_token, patch, image_size, options.pop("trained_size", None))
        model = cls(
            (grid[0] * patch[0], grid[1] * patch[1]) if image_size is None else image_size,
            patch,
            **{size: sizes[size] for size in ("m", "f", "depth")},
            k=k,
            h=sizes["a"] // k,
            classes=sizes["n"],
            in_channels=sizes["c"],
            class_token=class_token,
            **options,
            device="meta",
            dtype=positions.dtype,
        )
        tensors = {**weights.tensors, "positions": resampled(positions, grid, (model.i, model.j))}
        model.to_empty(device=positions.device).load_state_dict(tensors)
        return model.train(training)

    def to_timm(self) -> dict[str, torch.Tensor]:
        """Return the weights as a state dict that timm's VisionTransformer of the same sizes loads."""
        return self._written(from_vision_peers.TIMM if self.class_token is not None else from_vision_peers.TIMM_MEAN)

    def to_huggingface(self) -> dict[str, torch.Tensor]:
        """Return the weights as a state dict that ViTForImageClassification of transformers 5 loads.

        Raises:
            CircuitError: if this model has no class token, since ViTForImageClassification always has one.
        """
        if self.class_token is None:
            raise CircuitError(
                "VisionTransformer.to_huggingface: ViTForImageClassification has a class token, and this model has none"
            )
        return self._written(from_vision_peers.HUGGING_FACE)

    def _written(self, naming: renaming.Naming) -> dict[str, torch.Tensor]:
        """Return the weights under the names of another library."""
        return renaming.write(naming, self.state_dict(), len(self.layers), c=self.c, p=self.p, q=self.q)

    def resized(self, image_size: Size) -> Self:
        """Return a copy for images of another size, with positions that are resampled as by timm.

        The interpolation is bicubic, with antialiasing, in float32; the position of the class token is kept.

        Args:
            image_size: Rows and columns of an image, or one number for both.

        Raises:
            CircuitError: if rows or columns are not a multiple of the patch size.

        >>> import models
        >>> model = models.VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=2, classes=10)
        >>> model.resized((56, 28))(torch.rand(5, 3, 56, 28)).shape
        torch.Size([5, 10])
        """
        refuse_partial_patches(self.p, self.q, *pair(image_size))
        made = copy.deepcopy(self)
        made.i, made.j = pair(image_size)[0] // self.p, pair(image_size)[1] // self.q
        new = resampled(self.positions, (self.i, self.j), (made.i, made.j)).clone()
        made.positions, made.x = nn.Parameter(new, self.positions.requires_grad), len(new)
        change_arguments(made, image_size=[*pair(image_size)])
        return made


_READ = {
    "h": "the width of the weights divided by k; give k=, the width of a head, if it is not a standard one",
    **dict.fromkeys(("m", "f", "depth", "patch_size", "class_token"), "read from the weights, and cannot be given"),
    "in_channels": "read from the weights, and cannot be given",
    **dict.fromkeys(("device", "dtype"), "that of the weights; move the model by `to` afterwards"),
}
"""The arguments of the constructor that cannot be given with weights, and why."""


def refuse_partial_patches(p: int, q: int, rows: int, columns: int) -> None:
    """Raise CircuitError unless patches of p rows and q columns fill an image."""
    for name, size, patch in (("rows", rows, p), ("columns", columns, q)):
        if size < patch or size % patch:
            near = f"{patch}" if size < patch else f"{size // patch * patch} or {size // patch * patch + patch}"
            raise CircuitError(
                f"VisionTransformer: patches {p} by {q} do not fill {size} {name}; an image may have {near}"
            )


def _given(trained_size: Size | None, k: int | None) -> dict[str, Any]:
    """Return the arguments that are not None."""
    given = {"trained_size": trained_size, "k": k}
    return {name: value for name, value in given.items() if value is not None}
