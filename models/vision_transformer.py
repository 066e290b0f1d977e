"""The vision transformer: an image cut into patches, which are the words that a transformer encodes; then its class.

Each layer has its norms before its boxes. The answer is read off one vector: that of a class token, which is put before
the patches, or without one the mean over them. It is normed once it is read, which for the class token changes
nothing: a norm looks at one vector at a time. Positions are learned, so that a model has one size of image.

Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words; V. Abbott, Neural Circuit Diagrams, TMLR 2024, section
3.5, from where attention comes to images; for the smaller sizes, Touvron et al. 2021, Training data-efficient image
transformers.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, circuit, rearrange, reduce, repeat

from .transformer import EncoderLayer
from .weights import from_vision_peers
from .weights.files import savable

STANDARD: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "Ti": {"m": 192, "k": 64, "h": 3, "f": 768, "depth": 12},
        "S": {"m": 384, "k": 64, "h": 6, "f": 1536, "depth": 12},
        "B": {"m": 768, "k": 64, "h": 12, "f": 3072, "depth": 12},
        "L": {"m": 1024, "k": 64, "h": 16, "f": 4096, "depth": 24},
        "H": {"m": 1280, "k": 80, "h": 16, "f": 5120, "depth": 32},
    }
)
"""The sizes that have a name, tiny to huge: Dosovitskiy et al., Table 1; Touvron et al., Table 1."""


@savable
class Patches(nn.Module):
    """A vector for each patch of an image, p by p, from all that stands in it: the learned map L.

    A strided convolution gives the same, slower. The weight is (m, c p p), a convolution's flattened, and begins as in
    the paper's code: normal with variance 1 by its inputs, cut at two deviations; the bias at 0. Parameters: mcpp + m.

    >>> Patches(p=16, m=192)(torch.rand(5, 3, 224, 160)).shape
    torch.Size([5, 140, 192])
    """

    def __init__(
        self, p: int, m: int, c: int = 3, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.p, self.m, self.c = p, m, c
        self.L = nn.Linear(c * p * p, m, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        kept = 0.87962566103423978  # the deviation of what is left of a normal variable cut at two deviations
        deviation = self.L.in_features**-0.5 / kept
        nn.init.trunc_normal_(self.L.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.zeros_(self.L.bias)

    @circuit("b c (i p) (j p) -> b (i j) m", fixed="c p m")
    def forward(self, image: Tensor) -> Tensor:
        """The patches' vectors, row by row; raises ShapeError where the patches do not fill the image."""
        return self.L(rearrange(image, "b c (i p) (j q) -> b (i j) (c p q)", p=self.p, q=self.p))


@savable
class VisionTransformer(nn.Module):
    """What an image shows: the probability of each of n classes (Dosovitskiy et al., Figure 1).

    The image is `image_size`, rows and columns, in patches of `patch_size` both ways: i by j of them, x vectors with
    the class token. The encoder has `depth` layers of h heads, each k wide, and f units. What is left out is ViT-B/16.
    In training `dropout` is the probability of EncoderLayer's, and that of a number of the vectors that go in.

    Weights begin as in the paper's code: linear maps uniform within ±√(6 / (inputs + outputs)), Patches as it says,
    positions normal with deviation 0.02; the class token, biases and the head at 0, so that all classes begin equal.

    Parameters: cppm + m of the patches, xm of the positions, m of the class token, `depth` times
    4mhk + 2mf + 3hk + f + 6m, 2m of the last norm, (m + 1)n of the head: 86,567,656 for ViT-B/16. Raises CircuitError
    where patches do not fill an image, and where a size that must be at least 1 is not.

    >>> model = VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=2, classes=10, in_channels=1)
    >>> model(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
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
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes = {"m": m, "k": k, "h": h, "f": f, "depth": depth, "classes": classes, "in_channels": in_channels}
        _possible(rows, columns, {"patch_size": patch_size, **sizes})
        self.i, self.j, self.p = rows // patch_size, columns // patch_size, patch_size
        self.c, self.m, self.n, self.x = in_channels, m, classes, self.i * self.j + class_token
        self.dropout = dropout
        self.patches = Patches(patch_size, m, in_channels, device=device, dtype=dtype)
        self.class_token = nn.Parameter(torch.empty(m, device=device, dtype=dtype)) if class_token else None
        self.positions = nn.Parameter(torch.empty(self.x, m, device=device, dtype=dtype))
        self.layers = nn.ModuleList(
            EncoderLayer(m, k, h, f, activation, norm_first=True, dropout=dropout, eps=eps, device=device, dtype=dtype)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(m, eps, device=device, dtype=dtype)
        self.head = nn.Linear(m, classes, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew."""
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

    @circuit("b c (i p) (j p) -> b n", fixed="c i j p n")
    def forward(self, image: Tensor) -> Tensor:
        """The probability of each class; raises ShapeError for an image of another size."""
        return self.logits(image).softmax(-1)

    @circuit("b c (i p) (j p) -> b n", fixed="c i j p n")
    def logits(self, image: Tensor) -> Tensor:
        """The logarithm of each class's probability, up to one number shared by them all."""
        return self.head(self.features(image))

    @circuit("b c (i p) (j p) -> b m", fixed="c i j p m")
    def features(self, image: Tensor) -> Tensor:
        """The vector that the head reads: the class token's, or the mean over the patches, normed."""
        tokens = self.encode(image)
        return self.norm(reduce(tokens, "b x m -> b m", "mean") if self.class_token is None else tokens[:, 0])

    @features.kernel  # pyright: ignore[reportFunctionMemberAccess]
    def _(self, image: Tensor) -> Tensor:
        """In the last layer only the class token asks: nobody reads what the patches would find there."""
        if self.class_token is None:
            return self.norm(reduce(self.encode(image), "b x m -> b m", "mean"))
        tokens = self.embed(image)
        *layers, last = self.layers
        for layer in layers:
            tokens = layer(tokens)
        return self.norm(last(tokens[:, :1], source=tokens)[:, 0])

    @circuit("b c (i p) (j p) -> b x m", fixed="c i j p x m")
    def encode(self, image: Tensor) -> Tensor:
        """The vectors of the class token, if any, and of the patches, row by row, before the last norm."""
        tokens = self.embed(image)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    @circuit("b c (i p) (j p) -> b x m", fixed="c i j p x m")
    def embed(self, image: Tensor) -> Tensor:
        """What goes into the first layer: the class token, if any, and the patches, each with its position."""
        tokens = self.patches(image)
        if self.class_token is not None:
            tokens = torch.cat((repeat(self.class_token, "m -> b 1 m", b=image.shape[0]), tokens), 1)
        tokens = tokens + self.positions
        return F.dropout(tokens, self.dropout, self.training) if self.dropout else tokens

    @classmethod
    def standard(cls, name: str, image_size: int | tuple[int, int] = 224, **options: Any) -> Self:
        """A size with a name, Ti, S, B, L or H, and its patches: "B/16" is ViT-B/16; the options are the class's.

        Raises CircuitError for another name.

        >>> sum(parameter.numel() for parameter in VisionTransformer.standard("B/16", device="meta").parameters())
        86567656
        """
        size, _, patch = name.partition("/")
        if size not in STANDARD or not patch.isdecimal():
            raise CircuitError(f"VisionTransformer: there is no {name}; there are {', '.join(STANDARD)}, as in B/16")
        return cls(image_size, int(patch), **{**STANDARD[size], **options})

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
        """A model with the weights of timm's VisionTransformer, `theirs.state_dict()`, and so with equal logits.

        All sizes are the tensors', but for two: images are square unless `image_size` says otherwise, and `k` is that
        of the standard size as wide, unless given. With `classes` their head, if any, stays behind, and one with so
        many begins at 0. Without a class token theirs, too, has to norm the mean once it is taken, which is what timm
        builds for `class_token=False, global_pool="avg"`.

        Raises WeightsError for weights that are missing, that have no place here or other axes, all by their names, and
        CircuitError where image_size or k has to be given.
        """
        table = from_vision_peers.timm_table(state)
        return cls._with(
            from_vision_peers.read("VisionTransformer.from_timm", table, state, classes), image_size, k, options
        )

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
        """A model with the weights of transformers' ViTForImageClassification, or of its ViTModel without a pooler.

        By the names of transformers 5, or of those before. Arguments and errors are those of from_timm; `eps` is 1e-12
        unless given, as theirs is.
        """
        table = from_vision_peers.hugging_face_table(state)
        found = from_vision_peers.read("VisionTransformer.from_huggingface", table, state, classes)
        return cls._with(found, image_size, k, {"eps": 1e-12, **options})

    @classmethod
    def _with(
        cls,
        found: from_vision_peers.Weights,
        image_size: int | tuple[int, int] | None,
        k: int | None,
        options: Mapping[str, Any],
    ) -> Self:
        """A model of these weights."""
        sizes, like, class_token = found.sizes, found.tensors["positions"], "class_token" in found.tensors
        patches = sizes["x"] - class_token
        side = math.isqrt(patches)
        k = {each["m"]: each["k"] for each in STANDARD.values()}.get(sizes["m"]) if k is None else k
        if sizes["p"] != sizes["q"]:
            raise CircuitError(f"{found.name}: patches are {sizes['p']} by {sizes['q']}; ours are as high as wide")
        if image_size is None and side * side != patches:
            raise CircuitError(f"{found.name}: {patches} patches make no square; give image_size=(rows, columns)")
        if k is None or sizes["a"] % k:
            raise CircuitError(f"{found.name}: how wide a head is, no weight says: give k=, a divisor of {sizes['a']}")
        model = cls(
            side * sizes["p"] if image_size is None else image_size,
            sizes["p"],
            **{name: sizes[name] for name in ("m", "f", "depth")},
            k=k,
            h=sizes["a"] // k,
            classes=sizes["n"],
            in_channels=sizes["c"],
            class_token=class_token,
            **options,
            device="meta",
            dtype=like.dtype,
        )
        if model.x != sizes["x"]:
            raise CircuitError(
                f"{found.name}: an image of {image_size} has {model.i * model.j} patches; the weights are for {patches}"
            )
        model.to_empty(device=like.device).load_state_dict(found.tensors)
        return model

    def to_timm(self) -> dict[str, Tensor]:
        """The weights as timm's VisionTransformer of the same sizes loads them."""
        table = from_vision_peers.TIMM if self.class_token is not None else from_vision_peers.TIMM_MEAN
        return from_vision_peers.write(table, self.state_dict(), len(self.layers), c=self.c, p=self.p, q=self.p)

    def to_huggingface(self) -> dict[str, Tensor]:
        """The weights as ViTForImageClassification of transformers 5 loads them.

        Raises CircuitError without a class token, which theirs always has.
        """
        if self.class_token is None:
            raise CircuitError("VisionTransformer.to_huggingface: theirs has a class token, and this model has none")
        table = from_vision_peers.HUGGING_FACE
        return from_vision_peers.write(table, self.state_dict(), len(self.layers), c=self.c, p=self.p, q=self.p)


def _possible(rows: int, columns: int, sizes: Mapping[str, int]) -> None:
    """Raise CircuitError for sizes that no vision transformer has."""
    for name, size in sizes.items():
        if size < 1:
            raise CircuitError(f"VisionTransformer: {name} is {size}; it may be 1 or more")
    p = sizes["patch_size"]
    for name, size in {"rows": rows, "columns": columns}.items():
        if size < p or size % p:
            near = f"{p}" if size < p else f"{size // p * p} or {size // p * p + p}"
            raise CircuitError(f"VisionTransformer: patches {p} by {p} do not fill {size} {name}; it may have {near}")
