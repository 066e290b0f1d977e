"""The vision transformer: an image is cut into patches, encoded by a transformer as a sequence, and classified.

Layers are pre-norm. The input of the head is one vector: that of a class token, which precedes the patches, or if there
is none the mean over the patches. The last norm is applied to this vector alone; for a class token the result is the
same as with a norm of all vectors, since a norm acts on each vector separately. Positions are learned for one image
size.

Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section
3.5, for attention on images; for the smaller sizes, Touvron et al. 2021, Training data-efficient image
transformers.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, kernel_of, rearrange, reduce, repeat

from .encoder_layer import EncoderLayer
from .parts.hooks import is_hooked
from .parts.sizes import refuse_sizes_below_one
from .weights.files import savable
from .weights.vision_conversions import VisionTransformerConversions, refuse_partial_patches
from .weights.vision_settings import pair

STANDARD: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "Ti": {"m": 192, "k": 64, "h": 3, "f": 768, "depth": 12},
        "S": {"m": 384, "k": 64, "h": 6, "f": 1536, "depth": 12},
        "B": {"m": 768, "k": 64, "h": 12, "f": 3072, "depth": 12},
        "L": {"m": 1024, "k": 64, "h": 16, "f": 4096, "depth": 24},
        "H": {"m": 1280, "k": 80, "h": 16, "f": 5120, "depth": 32},
    }
)
"""The standard sizes by name, from tiny to huge: Dosovitskiy et al., Table 1; Touvron et al., Table 1."""


@savable
class Patches(nn.Module):
    """Patch embedding: a learned linear map `L` from each p by q patch of an image to a vector of width m.

    A convolution with stride (p, q) computes the same, slower; flattened, its weight is that of `L`, (m, c p q). The
    weight is initialized as in the paper's code: normal with variance 1/(number of inputs), truncated at two standard
    deviations; the bias as 0. Parameters: mcpq + m.

    Args:
        p: Rows and columns (p, q) of a patch, or one number for both (`patch_size`).
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        c: Number of channels of an image (`in_channels`, `in_chans`).
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if a size is below 1, or `p` is neither a number nor a pair.

    >>> Patches(p=16, m=192)(torch.rand(5, 3, 224, 160)).shape
    torch.Size([5, 140, 192])
    """

    p: int
    q: int
    m: int
    c: int

    def __init__(
        self,
        p: int | tuple[int, int],
        m: int,
        c: int = 3,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.p, self.q = pair(p)
        refuse_sizes_below_one("Patches", p=self.p, q=self.q, m=m, c=c)
        self.m, self.c = m, c
        self.L = nn.Linear(c * self.p * self.q, m, device=device, dtype=dtype)
        self.reset_parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled module; before patches could be oblong it had no q."""
        super().__setstate__({"q": state["p"], **state})

    def reset_parameters(self) -> None:
        """Re-initialize the weight and the bias."""
        truncated = 0.87962566103423978  # the standard deviation of a standard normal truncated at -2 and 2
        deviation = self.L.in_features**-0.5 / truncated
        nn.init.trunc_normal_(self.L.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.zeros_(self.L.bias)

    @circuit("b c (i p) (j q) -> b (i j) m", fixed="c p q m")
    def forward(self, image: Tensor) -> Tensor:
        """Return the vectors of the patches, `b (i j) m`, row by row.

        Args:
            image: The images, `b c (i p) (j q)`.

        Raises:
            ShapeError: if the number of channels is not c, rows are not a multiple of p, or columns not one of q.
        """
        return self.L(rearrange(image, "b c (i p) (j q) -> b (i j) (c p q)", p=self.p, q=self.q))


@savable
class VisionTransformer(VisionTransformerConversions):
    """Vision transformer for image classification, with n classes (Dosovitskiy et al., Figure 1).

    `forward` returns the logits of the classes, for loss functions such as F.cross_entropy. An image is cut into i by j
    patches; these and the class token, if any, are x vectors. The defaults are ViT-B/16. `forward` and `features`
    compute the last layer for the class token alone, since the head uses no other vector; if the layer has hooks, or
    under `definitions()`, for all, as `encode` does.

    Weights are initialized as in the paper's code: linear maps uniform within ±√(6 / (inputs + outputs)), `patches` as
    in Patches, positions normal with standard deviation 0.02; the class token, biases and the head as 0, so that
    all classes are equally likely.

    Parameters: cpqm + m for the patches, xm for the positions, m for the class token, 4mhk + 2mf + 3hk + f + 6m for
    each of `depth` layers, 2m for the last norm, (m + 1)n for the head; 86,567,656 for ViT-B/16.

    Args:
        image_size: Rows and columns of an image, or one number for both.
        patch_size: Rows and columns (p, q) of a patch, or one number for both.
        m: Width of the vectors (`d_model`, `embed_dim`, `hidden_size`).
        k: Width of a head (`head_dim`).
        h: Number of heads (`nhead`, `num_heads`).
        f: Number of hidden units of the feed-forward networks (`dim_feedforward`, `intermediate_size`).
        depth: Number of encoder layers (`num_layers`, `num_hidden_layers`).
        classes: Number n of classes (`num_classes`).
        in_channels: Number c of channels of an image.
        class_token: Whether the head is applied to the vector of a class token; otherwise to the mean over the patches.
        activation: Called without arguments, returns the activation of a feed-forward network, as its class does.
        dropout: As in EncoderLayer; also applied to the first layer's input.
        eps: Number that the norms add to the variance.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if rows or columns of an image are not a multiple of `patch_size`, or a size is below 1.

    >>> model = VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=2, classes=10, in_channels=1)
    >>> model(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    i: int
    j: int
    p: int
    q: int
    c: int
    m: int
    n: int
    x: int
    class_token: nn.Parameter | None

    _head_name, _classes_names = "head", ("n", "classes")
    _standard_widths = MappingProxyType({each["m"]: each["k"] for each in STANDARD.values()})

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        m: int = 768,
        k: int = 64,
        h: int = 12,
        f: int = 3072,
        depth: int = 12,
        classes: int = 1000,
        in_channels: int = 3,
        class_token: bool = True,
        activation: Callable[[], nn.Module] = nn.GELU,
        dropout: float = 0.0,
        eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        (rows, columns), (p, q) = pair(image_size), pair(patch_size)
        sizes = {"m": m, "k": k, "h": h, "f": f, "depth": depth, "classes": classes, "in_channels": in_channels}
        refuse_sizes_below_one("VisionTransformer", patch_size=min(p, q), **sizes)
        refuse_partial_patches(p, q, rows, columns)
        self.i, self.j, self.p, self.q = rows // p, columns // q, p, q
        self.c, self.m, self.n, self.x = in_channels, m, classes, self.i * self.j + class_token
        self.dropout = dropout
        self.patches: Patches = Patches(patch_size, m, in_channels, device=device, dtype=dtype)
        self.class_token = nn.Parameter(torch.empty(m, device=device, dtype=dtype)) if class_token else None
        self.positions: nn.Parameter = nn.Parameter(torch.empty(self.x, m, device=device, dtype=dtype))
        self.layers: nn.ModuleList = nn.ModuleList(
            EncoderLayer(m, k, h, f, activation, norm_first=True, dropout=dropout, eps=eps, device=device, dtype=dtype)
            for _ in range(depth)
        )
        self.norm: nn.LayerNorm = nn.LayerNorm(m, eps, device=device, dtype=dtype)
        self.head: nn.Linear = nn.Linear(m, classes, device=device, dtype=dtype)
        self.reset_parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled model; before patches could be oblong it had no q."""
        super().__setstate__({"q": state["p"], **state})

    def reset_parameters(self) -> None:
        """Re-initialize all parameters."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        self.patches.reset_parameters()
        nn.init.normal_(self.positions, std=0.02)
        nn.init.zeros_(self.head.weight)
        if self.class_token is not None:
            nn.init.zeros_(self.class_token)

    def _reset_head(self, head: Any) -> None:
        """Initialize a new head as `reset_parameters` does."""
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)

    @circuit("b c (i p) (j q) -> b n", fixed="c i j p q n")
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the classes, `b n`; `features` returns the vectors from which the head computes them.

        Args:
            image: The images, `b c (i p) (j q)`, of the size given to the constructor.

        Raises:
            ShapeError: if the images have another size or another number of channels.
        """
        return self.head(self.features(image))

    @circuit("b c (i p) (j q) -> b m", fixed="c i j p q m")
    def features(self, image: Tensor) -> Tensor:
        """Return the head's input, `b m`: the class token's vector, or the mean over the patches, after the norm."""
        tokens = self.encode(image)
        return self.norm(reduce(tokens, "b x m -> b m", "mean") if self.class_token is None else tokens[:, 0])

    @kernel_of(features)
    def _(self, image: Tensor) -> Tensor:
        """Compute the last layer for the class token alone, which the head uses; for all if it has hooks."""
        *layers, last = self.layers
        if self.class_token is None or is_hooked(last):
            tokens = self.encode(image)
            return self.norm(reduce(tokens, "b x m -> b m", "mean") if self.class_token is None else tokens[:, 0])
        tokens = self.embed(image)
        for layer in layers:
            tokens = layer(tokens)
        return self.norm(last(tokens[:, :1], source=tokens)[:, 0])

    @circuit("b c (i p) (j q) -> b x m", fixed="c i j p q x m")
    def encode(self, image: Tensor) -> Tensor:
        """Return the last layer's output, `b x m`, before the norm: the class token, if any, and the patches by row."""
        tokens = self.embed(image)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    @circuit("b c (i p) (j q) -> b x m", fixed="c i j p q x m")
    def embed(self, image: Tensor) -> Tensor:
        """Return the first layer's input, `b x m`: the class token, if any, and the patches, with positions added."""
        tokens = self.patches(image)
        if self.class_token is not None:
            tokens = torch.cat((repeat(self.class_token, "m -> b 1 m", b=image.shape[0]), tokens), 1)
        tokens = tokens + self.positions
        return F.dropout(tokens, self.dropout, self.training) if self.dropout else tokens

    @classmethod
    def standard(cls, name: str, image_size: int | tuple[int, int] = 224, **options: Any) -> Self:
        """Return a model of a standard size: "B/16" is ViT-B with patches of 16 by 16.

        Args:
            name: Ti, S, B, L or H, then a slash and the patch size.
            image_size: Rows and columns of an image, or one number for both.
            **options: Further arguments of the constructor, which take precedence over the standard sizes.

        Raises:
            CircuitError: if there is no standard size of this name.

        >>> sum(parameter.numel() for parameter in VisionTransformer.standard("B/16", device="meta").parameters())
        86567656
        """
        size, _, patch = name.partition("/")
        if size not in STANDARD or not patch.isdecimal():
            raise CircuitError(
                f"VisionTransformer: no standard size is named {name}; there are {', '.join(STANDARD)}, as in B/16"
            )
        return cls(image_size, int(patch), **{**STANDARD[size], **options})


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "VisionTransformer": {"order": "y x i j ... h b"},
}
"""The options with which `circuits.draw` orders axes as the paper does."""
