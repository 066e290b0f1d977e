"""The basic image recogniser: a multi-layer perceptron on the flattened image.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 19: the model of PyTorch's introductory tutorial.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from circuits import circuit, rearrange

from .parts.sizes import refuse_sizes_below_one
from .weights.classifier import Classifier
from .weights.files import savable


@savable
class MLP(Classifier):
    """A multi-layer perceptron that classifies images of x by y into k classes; `probabilities` is Figure 19.

    `forward` returns the logits of the classes, for loss functions such as F.cross_entropy; `probabilities` returns
    their softmax, with which the figure ends. The model has two hidden layers of m units with ReLU; the default sizes
    are the figure's. The first axis of an image is x, as in the figure. Weights and biases are initialized as in
    nn.Linear: uniform within ±(number of inputs of the layer)^-½.

    Parameters: (xy + 1)m + (m + 1)m + (m + 1)k; 669,706 with the default sizes.

    Args:
        x: Size of the image's first axis (`height`).
        y: Size of the image's second axis (`width`).
        m: Number of units of each hidden layer (`hidden_size`).
        k: Number of classes (`num_classes`).
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        CircuitError: if a size is below 1.

    >>> MLP()(torch.rand(5, 28, 28)).shape
    torch.Size([5, 10])
    """

    _head_name, _classes_names = "linear_relu_stack.4", ("k", "k")

    x: int
    y: int
    m: int
    k: int

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
        refuse_sizes_below_one("MLP", x=x, y=y, m=m, k=k)
        self.x, self.y, self.m, self.k = x, y, m, k
        self.linear_relu_stack: nn.Sequential = nn.Sequential(
            nn.Linear(x * y, m, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(m, m, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(m, k, device=device, dtype=dtype),
        )

    @circuit("... x y -> ... k", fixed="x y k")
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the classes, `... k`; `probabilities` returns their softmax.

        Args:
            image: The images, `... x y`.

        Raises:
            ShapeError: if the images are not x by y.
        """
        return self.linear_relu_stack(rearrange(image, "... x y -> ... (x y)"))

    @circuit("... x y -> ... k", fixed="x y k")
    def probabilities(self, image: Tensor) -> Tensor:
        """Return the probability of each class, `... k`: the whole of Figure 19. Argument and error as in `forward`."""
        return self(image).softmax(-1)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "MLP.probabilities": {"show_sizes": True},
}
"""The options with which `circuits.draw` draws Figure 19 as the paper does."""
