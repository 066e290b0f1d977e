"""Conversion of a VisionTransformer from and to the weights of timm and of Hugging Face's transformers.

The names and axes of those weights are in `from_vision_peers`.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from circuits import CircuitError

from . import from_vision_peers, renaming


class VisionTransformerConversions(nn.Module):
    """The methods of VisionTransformer that convert its weights; no other class inherits from this one."""

    _standard_widths: ClassVar[Mapping[int, int]]
    """The width k of a head in each standard size, by the width m of its vectors."""

    c: int
    p: int
    i: int
    j: int
    x: int
    class_token: nn.Parameter | None
    layers: nn.ModuleList

    @classmethod
    def from_timm(
        cls,
        state: Mapping[str, Tensor],
        *,
        image_size: int | tuple[int, int] | None = None,
        k: int | None = None,
        classes: int | None = None,
        **options: Any,
    ) -> Self:
        """Return a model with the weights, and so the logits, of timm's VisionTransformer.

        All sizes except `image_size` and `k` are read from the tensors. A model without a class token is one that timm
        builds with `class_token=False, global_pool="avg"`, whose norm follows the mean over the patches.

        Args:
            state: The `state_dict()` of timm's model.
            image_size: Rows and columns of an image, or one number for both. Unless given, the image is square.
            k: Width of a head. Unless given, that of the standard size (see `standard`) with the same width m.
            classes: If given, the head is replaced by one for this number of classes, initialized as 0.
            **options: Further arguments of the constructor: `dropout`, `activation`, `eps`.

        Raises:
            WeightsError: if weights are missing or unexpected, or have other axes; the message names them.
            CircuitError: if `image_size` or `k` is not given and cannot be inferred, or does not fit the weights.
        """
        naming = from_vision_peers.timm_naming(state)
        weights = from_vision_peers.read("VisionTransformer.from_timm", naming, state, classes)
        return cls._from_weights(weights, image_size, k, options)

    @classmethod
    def from_huggingface(
        cls,
        state: Mapping[str, Tensor],
        *,
        image_size: int | tuple[int, int] | None = None,
        k: int | None = None,
        classes: int | None = None,
        **options: Any,
    ) -> Self:
        """Return a model with the weights of transformers' ViTForImageClassification, or its ViTModel without a pooler.

        The names may be those of transformers 5 or of earlier versions.

        Args:
            state: The `state_dict()` of the model in transformers.
            image_size: As in from_timm.
            k: As in from_timm.
            classes: As in from_timm.
            **options: As in from_timm; `eps` is 1e-12 unless given, as in transformers.

        Raises:
            WeightsError: as from_timm does.
            CircuitError: as from_timm does.
        """
        naming = from_vision_peers.hugging_face_naming(state)
        weights = from_vision_peers.read("VisionTransformer.from_huggingface", naming, state, classes)
        return cls._from_weights(weights, image_size, k, {"eps": 1e-12, **options})

    @classmethod
    def _from_weights(
        cls,
        weights: renaming.Weights,
        image_size: int | tuple[int, int] | None,
        k: int | None,
        options: Mapping[str, Any],
    ) -> Self:
        """Return a model with the sizes of the weights, and with the weights."""
        name, sizes, positions = weights.name, weights.sizes, weights.tensors["positions"]
        class_token = "class_token" in weights.tensors
        patches = sizes["x"] - class_token
        side = math.isqrt(patches)
        k = cls._standard_widths.get(sizes["m"]) if k is None else k
        if sizes["p"] != sizes["q"]:
            raise CircuitError(f"{name}: patches are {sizes['p']} by {sizes['q']}; here they are square")
        if image_size is None and side * side != patches:
            raise CircuitError(f"{name}: {patches} patches do not form a square; give image_size=(rows, columns)")
        if k is None or sizes["a"] % k:
            raise CircuitError(
                f"{name}: the width of a head does not follow from the weights; give k=, a divisor of {sizes['a']}"
            )
        model = cls(
            side * sizes["p"] if image_size is None else image_size,
            sizes["p"],
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
        if model.x != sizes["x"]:
            raise CircuitError(
                f"{name}: an image of {image_size} has {model.i * model.j} patches; the weights are for {patches}"
            )
        model.to_empty(device=positions.device).load_state_dict(weights.tensors)
        return model

    def to_timm(self) -> dict[str, Tensor]:
        """Return the weights as a state dict that timm's VisionTransformer of the same sizes loads."""
        return self._written(from_vision_peers.TIMM if self.class_token is not None else from_vision_peers.TIMM_MEAN)

    def to_huggingface(self) -> dict[str, Tensor]:
        """Return the weights as a state dict that ViTForImageClassification of transformers 5 loads.

        Raises:
            CircuitError: if this model has no class token, since ViTForImageClassification always has one.
        """
        if self.class_token is None:
            raise CircuitError(
                "VisionTransformer.to_huggingface: ViTForImageClassification has a class token, and this model has none"
            )
        return self._written(from_vision_peers.HUGGING_FACE)

    def _written(self, naming: renaming.Naming) -> dict[str, Tensor]:
        """Return the weights under the names of another library."""
        return renaming.write(naming, self.state_dict(), len(self.layers), c=self.c, p=self.p, q=self.p)
