"""The UNet for semantic segmentation: an encoder of four scales, and a decoder with skip connections from each.

Convolutions are padded, so that the output has the h and w of the input. The figure saves C₁ to C₄ but loads only C₄,
C₃ and C₂; Ronneberger's network loads all four, which is the default here. The figure ends with the last convolution,
and so does `forward`, which returns its output: logits. Ronneberger's softmax over the classes is part of the loss.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 27; Ronneberger et al. 2015, U-Net: Convolutional Networks
for Biomedical Image Segmentation.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit

from .layers import DoubleConvolution, channels_first, channels_last, he_normal
from .parts.sizes import refuse_sizes_below_one
from .weights.classifier import Classifier
from .weights.files import savable


@savable
class DownScaleBlock(nn.Module):
    """A double convolution, whose output is saved for the skip connection, then 2×2 max pooling (Figure 27).

    Parameters: 9(c0 + c1)c1 + 2c1, initialized as in DoubleConvolution.

    Args:
        c0: The number of input channels (`in_channels`).
        c1: The number of output channels (`out_channels`).
        device, dtype: Those of the parameters.

    >>> half, saved = DownScaleBlock(1, 64)(torch.rand(5, 1, 16, 16))
    >>> half.shape, saved.shape
    (torch.Size([5, 64, 8, 8]), torch.Size([5, 64, 16, 16]))
    """

    c0: int
    c1: int

    def __init__(
        self, c0: int, c1: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.c0, self.c1 = c0, c1
        self.double_convolution: DoubleConvolution = DoubleConvolution(c0, c1, device=device, dtype=dtype)
        self.downscale: nn.MaxPool2d = nn.MaxPool2d(2)

    @circuit("b c0 h w -> b c1 h/2 w/2, b c1 h w", fixed="c0 c1", multiples={"h": 2, "w": 2})
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image at half the size, and the image saved for the skip connection."""
        saved = self.double_convolution(image)
        return self.downscale(saved), saved


@savable
class UpScaleBlock(nn.Module):
    """A double convolution of two images, concatenated over channels, then upscaling by 2 (Figure 27).

    The two images are the input of the block and one saved by a DownScaleBlock.

    Parameters: 27 c1² + 2 c1 of the DoubleConvolution, and 4 c1 c0 + c0 of the upscaling, a transposed convolution. The
    weight of the latter is initialized normal with variance 2/c1 (c1 is the number of inputs of one output), its bias
    to 0.

    Args:
        c1: The number of channels of each of the two images (`in_channels`).
        c0: The number of output channels (`out_channels`).
        device, dtype: Those of the parameters.

    >>> image, saved = torch.rand(2, 5, 128, 8, 8)
    >>> UpScaleBlock(128, 64)(image, saved).shape
    torch.Size([5, 64, 16, 16])
    """

    c1: int
    c0: int

    def __init__(
        self, c1: int, c0: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.c1, self.c0 = c1, c0
        self.double_convolution: DoubleConvolution = DoubleConvolution(2 * c1, c1, device=device, dtype=dtype)
        self.upscale: nn.ConvTranspose2d = nn.ConvTranspose2d(c1, c0, 2, 2, device=device, dtype=dtype)
        he_normal(self.upscale)

    @circuit("b c1 h w, b c1 h w -> b c0 2*h 2*w", fixed="c0 c1")
    def forward(self, image: Tensor, saved: Tensor) -> Tensor:
        """Return the image at twice the size."""
        return self.upscale(self.double_convolution(torch.cat((image, saved), 1)))


@savable
class UNet(Classifier):
    """Semantic segmentation by a UNet (Figure 27, with four skip connections).

    `forward` returns the logits of k classes at every pixel, for loss functions such as F.cross_entropy. h and w are
    multiples of 16: pad an image of another size, and crop the logits. Weights are initialized normal with variance
    2/(number of inputs of one output), as in Ronneberger et al. and He et al. 2015, and biases to 0.

    Parameters, with n channels, c input channels and k classes: 7574n² + 107n + 9cn + (n + 1)k; with three skip
    connections 7547n² + 105n + 9cn + (n + 1)k. The defaults have 31,030,658.

    Args:
        classes: The number of classes, k (`num_classes`).
        channels: The number of channels at full size, n; each of the four scales below has twice as many as the one
            above.
        in_channels: The number of channels of the image, c.
        loads: The number of skip connections: 4, or 3 without the outermost (C₁), as in the figure.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If `loads` is neither 3 nor 4.

    >>> UNet(classes=3, channels=4)(torch.rand(5, 1, 32, 48)).shape
    torch.Size([5, 3, 32, 48])
    """

    _head_name, _classes_names = "convolution", ("classes", "classes")

    classes: int
    in_channels: int
    down: nn.ModuleList
    up: nn.ModuleList
    top: DoubleConvolution | None

    def __init__(
        self,
        classes: int = 2,
        channels: int = 64,
        in_channels: int = 1,
        *,
        loads: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if loads not in (3, 4):
            raise CircuitError(f"UNet: loads must be 4, or 3 as in the figure, not {loads}")
        refuse_sizes_below_one("UNet", classes=classes, channels=channels, in_channels=in_channels)
        self.classes, self.in_channels = classes, in_channels
        c = [in_channels, *(channels * 2**i for i in range(5))]
        self.down = nn.ModuleList(DownScaleBlock(c[i - 1], c[i], device=device, dtype=dtype) for i in (1, 2, 3, 4))
        self.middle: DoubleConvolution = DoubleConvolution(c[4], c[5], device=device, dtype=dtype)
        self.middle_upscale: nn.ConvTranspose2d = nn.ConvTranspose2d(c[5], c[4], 2, 2, device=device, dtype=dtype)
        self.up = nn.ModuleList(UpScaleBlock(c[i], c[i - 1], device=device, dtype=dtype) for i in (4, 3, 2))
        self.top = DoubleConvolution(2 * c[1], c[1], device=device, dtype=dtype) if loads == 4 else None
        self.convolution: nn.Conv2d = nn.Conv2d(c[1], classes, 1, device=device, dtype=dtype)
        self.reset_parameters()

    @classmethod
    def as_drawn(
        cls,
        classes: int = 2,
        channels: int = 64,
        in_channels: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Return the UNet exactly as in the figure: three skip connections, and twice the channels, as in the legend.

        Parameters: as UNet with three skip connections and n = 2·`channels`; 123,664,898 with the defaults.

        Args:
            classes: The number of classes, k (`num_classes`).
            channels: Half the number of channels at full size.
            in_channels: The number of channels of the image, c.
            device, dtype: Those of the parameters.

        >>> sum(parameter.numel() for parameter in UNet.as_drawn(device="meta").parameters())
        123664898
        """
        return cls(classes, 2 * channels, in_channels, loads=3, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Re-initialize all parameters, as `he_normal` does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                he_normal(module)

    def _reset_head(self, head: Any) -> None:
        """Initialize a new head as `reset_parameters` does."""
        he_normal(head)

    @circuit("b c h w -> b k h w", fixed={"c": "in_channels", "k": "classes"}, multiples={"h": 16, "w": 16})
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the classes at every pixel, `b k h w`; probabilities are their softmax over k.

        Raises:
            ShapeError: If h or w is not a multiple of 16.
        """
        image, saved_images = channels_last(image), []
        for block in self.down:
            image, saved = block(image)
            saved_images.append(saved)
        image = self.middle_upscale(self.middle(image))
        for block in self.up:
            image = block(image, saved_images.pop())
        if self.top is not None:
            image = self.top(torch.cat((image, saved_images.pop()), 1))
        return channels_first(self.convolution(image))


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "UNet": {"order": "h w ...", "pairs": "x = h w", "hide": "b"},
    "UNet.as_drawn": {"order": "h w ...", "pairs": "x = h w", "hide": "b", "equation": True},
}
"""The options with which `circuits.draw` draws Figure 27 as the paper does."""
