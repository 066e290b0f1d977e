"""The basic image recogniser: an image, flattened, through three linear maps to the probability of each class.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 19, which draws PyTorch's introductory tutorial.
"""

import torch
from torch import Tensor, nn

from circuits import circuit, rearrange

from .weights.files import savable


@savable
class MLP(nn.Module):
    """What an image of x by y shows: the probability of each of k classes (Figure 19).

    Two layers of m rectified units stand between; the figure's sizes are the defaults. The image's first axis is called
    x, as the figure draws it. Weights and biases begin as nn.Linear's do, uniform within ±(inputs of the layer)^-½.

    Parameters: (xy + 1)m + (m + 1)m + (m + 1)k; the figure's 669,706.

    >>> MLP()(torch.rand(5, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        x: int = 28,
        y: int = 28,
        m: int = 512,
        k: int = 10,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.x, self.y, self.m, self.k = x, y, m, k
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(x * y, m, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(m, m, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(m, k, device=device, dtype=dtype),
        )

    @circuit("... x y -> ... k", fixed="x y k")
    def forward(self, image: Tensor) -> Tensor:
        """The probability of each class; raises ShapeError unless the image is x by y."""
        return self.logits(image).softmax(-1)

    @circuit("... x y -> ... k", fixed="x y k")
    def logits(self, image: Tensor) -> Tensor:
        """The logarithm of each class's probability, up to one number shared by them all."""
        return self.linear_relu_stack(rearrange(image, "... x y -> ... (x y)"))
