"""The memory layout of a batch of images: channels last, in which convolutions are fast, or first.

A diagram does not show layout: the definitions of both circuits return the image itself, and only the kernels copy it.
"""

import torch
from torch import Tensor

from circuits import circuit, rearrange


@circuit("b c h w -> b c h w")
def channels_last(image: Tensor) -> Tensor:
    """Return the image with the channels of a pixel adjacent in memory: torch.channels_last, fast in convolutions.

    The kernel copies even an image that torch regards as channels last, because an image with a single channel may lack
    the strides by which torch chooses the algorithm of a convolution. It copies a rearranged view, because torch.vmap
    does not support `memory_format`. Images of dtype float64 are returned without a copy: on CPU their convolutions
    are not faster in this layout, and torch.vmap of a gradient fails.
    """
    return image


@channels_last.kernel
def _(image: Tensor) -> Tensor:
    """Return a copy, or the image itself if it is float64."""
    if image.dtype == torch.float64:
        return image
    copied = rearrange(image, "b c h w -> b h w c").clone(memory_format=torch.contiguous_format)
    return rearrange(copied, "b h w c -> b c h w")


@circuit("b c h w -> b c h w")
def channels_first(image: Tensor) -> Tensor:
    """Return the image in the layout of a new tensor (torch.contiguous_format): each channel is contiguous."""
    return image


@channels_first.kernel
def _(image: Tensor) -> Tensor:
    """Return a copy, or the image itself if it has this layout."""
    return image.contiguous()
