"""The identity (pre-activation) residual network: three blocks of residual units, with norm and activation first.

Convolutions have no bias by default, as in He et al. 2016; in the figure the strided convolutions have one, drawn as
L₊. The first unit of each block has a stride and changes the number of channels; the norm and activation before it are
shared by its main path and its connection, as in the figure.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, Figure 26; He et al. 2016, Identity Mappings in Deep Residual
Networks; for the initialization, He et al. 2015, Delving Deep into Rectifiers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from circuits import CircuitError, circuit, reduce

from .layers import NormActivate, ResidualConnection, channels_last
from .parts.sizes import refuse_sizes_below_one
from .weights.classifier import Classifier
from .weights.files import savable


@savable
class Block(nn.Module):
    """One residual unit with stride s from n0 to n1 channels, then N-1 units that keep sizes (Figure 26, lower part).

    Each unit has a bottleneck of n1/4 channels and its own weights. A block by itself is initialized as nn.Conv2d is;
    IdentityResNet initializes its blocks again.

    Parameters, with n = n1/4: 5 n0 n + 2 n0 + (17N - 4)n² + (12N - 8)n, and (6N + 4)n more with `bias=True`.

    Args:
        s: The stride of the first unit (`stride`), by which h and w are divided.
        N: The number of units (`num_blocks`).
        n0: The number of input channels (`in_channels`).
        n1: The number of output channels (`out_channels`), a multiple of 4.
        bias: Whether the convolutions have a bias.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If n1 is not a positive multiple of 4, or N or s is less than 1.

    >>> Block(s=2, N=3, n0=64, n1=128)(torch.rand(5, 64, 8, 8)).shape
    torch.Size([5, 128, 4, 4])
    """

    s: int
    n0: int
    n1: int
    strided: ResidualConnection
    plain: nn.ModuleList

    def __init__(
        self,
        s: int,
        N: int,
        n0: int,
        n1: int,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_sizes_below_one("Block", s=s, N=N, n0=n0, n1=n1)
        if n1 % 4:
            raise CircuitError(f"Block: the bottleneck has n1/4 channels, so n1 must be 4, 8, 12, ..., not {n1}")
        self.s, self.n0, self.n1 = s, n0, n1
        n = n1 // 4

        def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(
                inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias, device=device, dtype=dtype
            )

        def norm_activate(channels: int) -> NormActivate:
            return NormActivate(channels, device=device, dtype=dtype)

        def residual(*first: nn.Module, connection: nn.Module | None = None) -> ResidualConnection:
            rest = (norm_activate(n), convolution(n, n, 3), norm_activate(n), convolution(n, n1))
            return ResidualConnection(nn.Sequential(*first, *rest), connection)

        strided = residual(convolution(n0, n, 1, s), connection=convolution(n0, n1, 1, s))
        plain = [residual(norm_activate(n1), convolution(n1, n)) for _ in range(N - 1)]
        self.norm_activate: NormActivate = norm_activate(n0)
        self.strided = circuit("b n0 h w -> b n1 h/s w/s", fixed={"n0": n0, "n1": n1, "s": s})(strided)
        self.plain = nn.ModuleList(circuit("b n1 h w -> b n1 h w", fixed={"n1": n1})(unit) for unit in plain)

    @circuit("b n0 h w -> b n1 h/s w/s", fixed="n0 n1 s")
    def forward(self, image: Tensor) -> Tensor:
        """Return the image after all units.

        Raises:
            ShapeError: If s does not divide h and w.
        """
        image = self.strided(self.norm_activate(image))
        for unit in self.plain:
            image = unit(image)
        return image


@savable
class IdentityResNet(Classifier):
    """Image classification by the identity residual network; `probabilities` is Figure 26.

    `forward` returns the logits of k classes, for loss functions such as F.cross_entropy; `probabilities` returns their
    softmax, with which the figure ends. h and w are multiples of 4, since two
    of the three blocks halve them. With `units=18` and three input channels this is the pre-activation ResNet-164. The
    weights of convolutions are initialized normal, with variance 2/(number of outputs of one input), their biases to 0
    and the norms to the identity (He et al. 2015); the last weight as in nn.Linear, uniform within ±(n4)^-½, its bias
    to 0.

    Parameters: 9c n1 of the first convolution, those of three Blocks, 2 n4 of the last norm, and (n4 + 1)k of the last
    linear map; with `bias=True` n1 and the biases of the Blocks more. For N units and otherwise defaults this is
    92,736N + 34,010: 312,218 for the figure, 1,703,258 with 18 units, 10,327,706 with 111. The figure with biases has
    314,698.

    Args:
        units: The number of residual units in each block, the figure's N.
        channels: The figure's n1 to n4: the channels of the first convolution and of the three blocks. All but the
            first are multiples of 4.
        classes: The number of classes, k (`num_classes`).
        in_channels: The number of channels of the image, c.
        bias: Whether the convolutions have a bias.
        device, dtype: Those of the parameters.

    Raises:
        CircuitError: If `channels` are not four numbers, a block's channels are not a multiple of 4, or `units` is less
            than 1.

    >>> IdentityResNet()(torch.rand(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """

    _head_name, _classes_names = "linear", ("classes", "classes")

    classes: int
    in_channels: int

    def __init__(
        self,
        units: int = 3,
        channels: Sequence[int] = (16, 64, 128, 256),
        classes: int = 10,
        in_channels: int = 3,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != 4:
            raise CircuitError(f"IdentityResNet: channels must be four numbers, n1 to n4, got {len(channels)}")
        refuse_sizes_below_one("IdentityResNet", units=units, classes=classes, in_channels=in_channels)
        self.classes, self.in_channels = classes, in_channels
        n1, n2, n3, n4 = channels
        self.convolution: nn.Conv2d = nn.Conv2d(in_channels, n1, 3, padding=1, bias=bias, device=device, dtype=dtype)
        self.blocks: nn.ModuleList = nn.ModuleList(
            Block(s, units, before, after, bias=bias, device=device, dtype=dtype)
            for s, before, after in ((1, n1, n2), (2, n2, n3), (2, n3, n4))
        )
        self.norm_activate: NormActivate = NormActivate(n4, device=device, dtype=dtype)
        self.linear: nn.Linear = nn.Linear(n4, classes, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialize all parameters, and reset the running statistics of the norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _reset_head(self, head: Any) -> None:
        """Initialize a new head as `reset_parameters` does."""
        head.reset_parameters()
        nn.init.zeros_(head.bias)

    @circuit("b c h w -> b k", fixed={"c": "in_channels", "k": "classes"}, multiples={"h": 4, "w": 4})
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the classes, `b k`; `probabilities` returns their softmax.

        Raises:
            ShapeError: If h or w is not a multiple of 4.
        """
        image = self.convolution(channels_last(image))
        for block in self.blocks:
            image = block(image)
        return self.linear(reduce(self.norm_activate(image), "b n h w -> b n", "mean"))

    @circuit("b c h w -> b k", fixed={"c": "in_channels", "k": "classes"}, multiples={"h": 4, "w": 4})
    def probabilities(self, image: Tensor) -> Tensor:
        """Return the probability of each class, `b k`: the whole of Figure 26. Errors are those of `forward`."""
        return self(image).softmax(-1)


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "IdentityResNet.probabilities": {"order": "h w ... b", "pairs": "x = h w", "close": "Block", "equation": True},
    "Block": {"order": "h w ... b", "pairs": "x = h w", "equation": True},
}
"""The options with which `circuits.draw` draws both parts of Figure 26 as the paper does."""
