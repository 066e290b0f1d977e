"""The training tasks: for each name its data, model, augmentation, loss, score and hyperparameters.

Every model is one of `models`, at a size that trains on two cores in minutes; only the network around visual attention
is defined here. To add a task, add an entry to TASKS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from circuits import circuit, reduce
from models.conv_attention import ConvAttention
from models.language_model import LanguageModel
from models.layers import DoubleConvolution
from models.mlp import MLP
from models.resnet import Block as ResNetBlock
from models.resnet import IdentityResNet
from models.sequence_to_sequence import SequenceToSequence
from models.transformer_layers import DecoderLayer, EncoderLayer
from models.unet import DownScaleBlock, UNet, UpScaleBlock
from models.vision_transformer import VisionTransformer
from models.visual_attention import VisualAttention
from models.weights.files import savable
from scripts.data import CANVASES, IMAGES, PICTURES, SEQUENCES, TEXTS, Examples, shifted, warped
from scripts.own_data import DataError, grey_images, grey_pictures, pictures, text
from scripts.scores import (
    ACCURACY,
    BITS,
    EXACT,
    OVERLAP,
    Score,
    character_cross_entropy,
    correct,
    pixel_cross_entropy,
    smoothed_cross_entropy,
    started,
    token_cross_entropy,
)


def inputs_alone(model: Any, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """The inputs as the only argument."""
    return (inputs,)


def itself(model: Any) -> nn.Module:
    """The model itself."""
    return model


@dataclass(frozen=True)
class Task:
    """A training task: data, model, augmentation, loss, score and hyperparameters."""

    data: Mapping[str, Callable[[], Examples]]
    """Functions that load the data, by the names that --data takes; the first is the default."""
    reads: Callable[[Path, int], Examples] | None
    """Reads the user's own data at a path, images in squares of a size; None if the task has no reader."""
    model: Callable[[Examples], nn.Module]
    """Returns an untrained model of the right size for the examples."""
    augment: Callable[[Tensor], Tensor]
    """Random augmentation of training inputs; their targets stay valid."""
    loss: Callable[[Any, Tensor, Tensor], Tensor]
    """The training loss of (model, inputs, targets), a tensor without axes."""
    score: Score
    blocks: tuple[type[nn.Module], ...]
    """The module classes whose activations --checkpointing recomputes in the backward pass."""
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    arguments: Callable[[Any, Tensor, Tensor], tuple[Tensor, ...]] = inputs_alone
    """The arguments of the model's `forward` from (model, inputs, targets)."""
    exported: Callable[[Any], nn.Module] = itself
    """The module that --export writes, from the model."""
    axes: str = ""
    """The axes of `arguments`, for `circuits.shard`."""
    split: Mapping[str, str] = field(default_factory=dict)
    """The mesh axis over which each axis is split where a mesh has it; empty for a model that cannot be split."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The axes of parameters that name none, as for `circuits.shard`."""
    is_called_otherwise: bool = False
    """Whether the score calls the model by another method than `forward`."""

    def examples(self, data: str, size: int) -> Examples:
        """The examples of a data set, or of the user's own files at a path, images in squares of a size."""
        if data in self.data:
            return self.data[data]()
        if self.reads is None:
            raise DataError(f"this task reads no files; its data are {', '.join(self.data)}")
        return self.reads(Path(data), size)


# --- The network around visual attention ------------------------------------------------------------------------------


@savable
class VisualRecogniser(nn.Module):
    """An image classifier with one block of visual attention (Figure 28).

    A patch convolution, ReLU, the block of Figure 28, ReLU, the mean over positions, and a linear map. There is no
    positional encoding: a patch is located only by its neighbours in a window.

    Patches are p by p; the block has h heads of width k and windows of 3 by 3. Weights are initialized as torch's are.
    Parameters: (pp + 1)c of the patches, 36chk of the block, (c + 1)n of the linear map.

    >>> import torch
    >>> VisualRecogniser(patch=4, c=32, k=8, heads=4, classes=10)(torch.rand(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, patch: int, c: int, k: int, heads: int, classes: int) -> None:
        super().__init__()
        self.p, self.n = patch, classes
        self.patches = nn.Conv2d(1, c, patch, patch)
        self.attention = VisualAttention(c, k, heads, kernel=3)
        self.linear = nn.Linear(c, classes)

    @circuit("b 1 (i p) (j p) -> b n", fixed="p n")
    def forward(self, image: Tensor) -> Tensor:
        """The logits of each class."""
        patches = self.patches(image).relu()
        found = self.attention(patches, patches).relu()
        return self.linear(reduce(found, "b c i j -> b c", "mean"))


class Predictor(nn.Module):
    """The prediction of a ConvAttention as a module, for its own `forward` is the loss of its document."""

    def __init__(self, model: ConvAttention) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """The logits of each class."""
        return self.model.predict(images)


# --- The table --------------------------------------------------------------------------------------------------------


def side(examples: Examples) -> int:
    """The height and width of the images, in pixels."""
    return examples.inputs.shape[-1]


def unchanged(inputs: Tensor) -> Tensor:
    """The inputs, unchanged."""
    return inputs


BATCH = {"b": "data"}
HEADS = BATCH | {"h": "tensor", "f": "tensor"}
HIDDEN = {"L1.weight": "f m"}

TASKS: Mapping[str, Task] = {
    "mlp": Task(
        data=IMAGES,
        reads=grey_images,
        model=lambda examples: MLP(*examples.inputs.shape[1:], k=examples.classes),
        augment=lambda images: shifted(images, images.shape[-1] // 28),
        loss=smoothed_cross_entropy,
        score=ACCURACY,
        blocks=(nn.Sequential,),
        epochs=20,
        batch_size=64,
        lr=1e-3,
        weight_decay=0.05,
        axes="b x y",
        split=BATCH,
    ),
    "resnet": Task(
        data=PICTURES,
        reads=pictures,
        model=lambda examples: IdentityResNet(
            2, (16, 32, 64, 128), examples.classes, in_channels=examples.inputs.shape[1]
        ),
        augment=warped,
        loss=smoothed_cross_entropy,
        score=ACCURACY,
        blocks=(ResNetBlock,),
        epochs=16,
        batch_size=64,
        lr=1e-2,
        weight_decay=0.05,
        axes="b c H W",
        split=BATCH,
    ),
    "unet": Task(
        data=CANVASES,
        reads=None,
        model=lambda examples: UNet(examples.classes, channels=8),
        augment=unchanged,
        loss=pixel_cross_entropy,
        score=OVERLAP,
        blocks=(DownScaleBlock, UpScaleBlock, DoubleConvolution),
        epochs=6,
        batch_size=8,
        lr=2e-3,
        weight_decay=0.05,
        axes="b c H W",
        split=BATCH,
    ),
    "vision_transformer": Task(
        data=PICTURES,
        reads=pictures,
        model=lambda examples: VisionTransformer(
            side(examples),
            side(examples) // 4,
            m=128,
            k=32,
            h=4,
            f=256,
            depth=3,
            classes=examples.classes,
            in_channels=examples.inputs.shape[1],
            class_token=False,
        ),
        augment=warped,
        loss=smoothed_cross_entropy,
        score=ACCURACY,
        blocks=(EncoderLayer,),
        epochs=80,
        batch_size=64,
        lr=2e-3,
        weight_decay=0.05,
        axes="b c H W",
        split=HEADS,
        names=HIDDEN,
    ),
    "visual_attention": Task(
        data=PICTURES,
        reads=grey_pictures,
        model=lambda examples: VisualRecogniser(side(examples) // 7, c=64, k=16, heads=4, classes=examples.classes),
        augment=warped,
        loss=smoothed_cross_entropy,
        score=ACCURACY,
        blocks=(VisualAttention,),
        epochs=15,
        batch_size=64,
        lr=5e-3,
        weight_decay=0.05,
        axes="b c H W",
        split=BATCH,
    ),
    "conv_attention": Task(
        data=IMAGES,
        reads=grey_images,
        model=lambda examples: ConvAttention(
            side(examples), side(examples), side(examples) // 5, side(examples) // 5, k=32, v=64, n=examples.classes
        ),
        augment=lambda images: shifted(images, images.shape[-1] // 28),
        loss=lambda model, images, kinds: smoothed_cross_entropy(model.predict, images, kinds),
        score=replace(ACCURACY, tally=lambda model, images, kinds: correct(model.predict, images, kinds)),
        blocks=(),
        epochs=20,
        batch_size=64,
        lr=1e-2,
        weight_decay=0.05,
        exported=Predictor,
    ),
    "language_model": Task(
        data=TEXTS,
        reads=text,
        model=lambda examples: LanguageModel(examples.classes, m=128, k=32, h=4, f=512, depth=3),
        augment=unchanged,
        loss=character_cross_entropy,
        score=BITS,
        blocks=(EncoderLayer,),
        epochs=6,
        batch_size=4,
        lr=2e-3,
        weight_decay=0.1,
        axes="b x",
        split=HEADS | {"x": "sequence"},
        names=HIDDEN,
    ),
    "sequence_to_sequence": Task(
        data=SEQUENCES,
        reads=None,
        model=lambda examples: SequenceToSequence(
            examples.classes + 1, m=64, k=16, h=4, f=256, encoder_depth=2, decoder_depth=2, dropout=0.0
        ),
        augment=unchanged,
        loss=token_cross_entropy,
        score=EXACT,
        blocks=(EncoderLayer, DecoderLayer),
        epochs=4,
        batch_size=128,
        lr=2e-3,
        weight_decay=0.05,
        arguments=lambda model, source, targets: (source, started(model, targets)[:, :-1]),
        axes="b x, b y",
        split=BATCH | {"x": "sequence", "y": "sequence"},
        is_called_otherwise=True,
    ),
}
