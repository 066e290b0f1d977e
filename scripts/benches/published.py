"""Published speed and memory of training Llama 3.1 on H100s, compared with what `search_shardings` estimates on paper.

Source: torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, tables 1, 3, 4 and 5: sequences of 8,192 tokens, hosts
of 8 H100 with 96 GB each and 400 Gb/s of network for each GPU. The model is Llama's of these sizes, recorded with one
layer that counts as many, and trained by Adam in bfloat16 with parameters, gradients and moments in float32.

In place of the loss, which reads across the vocabulary, stands the sum of exponentials of a softmax in float32: it
saves as much, and the vocabulary can be split. Attention is one kernel that computes the pairs that the causal mask
leaves.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import MACHINES, Box, Diagram, Machine, Rate, circuit, search_shardings
from models import LanguageModel
from models.gated_feed_forward import GatedFeedForward

LENGTH = 8192
NAMES = {"L1.weight": "f m", "L3.weight": "f m"}
DATA = {"b": "data"}
BOTH = {**DATA, "h": "tensor", "g": "tensor", "f": "tensor", "v": "tensor"}
_SOURCE = "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, hardware"


@dataclass(frozen=True)
class Published:
    """A published measurement and the model of it.

    Attributes:
        name: The model, and the number of devices.
        sizes: The sizes m, h and f.
        layers: How many layers one rank runs.
        mesh: The mesh, but for the ranks of a pipeline.
        batch: The sequences of a step of one rank of `data`.
        checkpoints: What is recomputed: "selective" or "full", as `selective` and `full` say.
        float8: Whether linear maps computed in float8.
        tokens: The tokens in a second of one device.
        memory: The GiB of one device; None where it cannot be compared.
        stages: The ranks of the pipeline.
    """

    name: str
    sizes: tuple[int, int, int]
    layers: int
    mesh: dict[str, int]
    batch: int
    checkpoints: str
    float8: bool
    tokens: float
    memory: float | None
    stages: int = 1


_8B, _70B, _405B = (4096, 32, 14336), (8192, 64, 28672), (16384, 128, 53248)
PUBLISHED = (
    Published("8B, 8", _8B, 32, {"data": 8}, 2, "selective", False, 5762, 82.4),
    Published("8B, 128", _8B, 32, {"data": 128}, 2, "selective", False, 5605, 67.0),
    Published("70B, 256", _70B, 80, {"data": 32, "tensor": 8}, 16, "full", True, 829, 71.9),
    Published("405B, 512", _405B, 15, {"data": 8, "tensor": 8}, 32, "full", True, 128, None, stages=8),
)
"""A stage of 405B has 126/8 layers, and its memory depends on the batches that are in the pipeline at a time."""


class Normalizer(nn.Module):
    """The sum of the exponentials of logits, in float32, by which a softmax divides."""

    @circuit("... v -> ...")
    def forward(self, logits: Tensor) -> Tensor:
        """Return it for each vector of logits."""
        return logits.float().exp().sum(-1)


class Llama(nn.Module):
    """Llama 3 with one layer, up to the sums of its softmax, on the meta device."""

    def __init__(self, m: int, h: int, f: int) -> None:
        super().__init__()
        self.model = LanguageModel(
            128256, m, 128, h, f, 1, nn.SiLU, groups=8, norm=nn.RMSNorm, feed_forward=GatedFeedForward, bias=False,
            tied=False, device="meta", dtype=torch.bfloat16,
        )  # fmt: skip
        self.normalizer = Normalizer()

    @circuit("b x -> b x", dtypes={"tokens": torch.long})
    def forward(self, tokens: Tensor) -> Tensor:
        """Return the sum of the exponentials of the logits at each token."""
        return self.normalizer(self.model(tokens))


def full(diagram: Diagram) -> list[Box]:
    """Return all operations of each layer, but the last, whose result is the input of the next layer."""
    layers = [_operations(box) for box in diagram.boxes[0].walk() if re.fullmatch(r"model\.layers\.\d+", box.path)]
    return [box for layer in layers for box in layer[:-1]]


def selective(diagram: Diagram) -> list[Box]:
    """Return what is recomputed if every second matrix product and the result of attention are kept."""
    kept = [
        id(_operations(box)[-1])
        for box in diagram.boxes[0].walk()
        if box.path.endswith((".Lq", ".Lv", ".L1")) or box.label == "attention"
    ]
    return [box for box in full(diagram) if id(box) not in kept]


def _operations(box: Box) -> list[Box]:
    """Return the operations in a box, but powers, whose results are always saved."""
    return [each for each in box.walk() if each.call is not None and each.label != "rpow"]


CHECKPOINTS: dict[str, Callable[[Diagram], list[Box]]] = {"selective": selective, "full": full}


def machine(float8: bool) -> Machine:
    """Return an H100 of these hosts; with `float8`, all contractions are computed at the rate of float8."""
    found = replace(MACHINES["H100 SXM"], memory=Rate(96e9, _SOURCE))
    rate = found.flops[torch.float8_e4m3fn]
    return replace(found, flops={**found.flops, torch.bfloat16: rate}) if float8 else found


@dataclass(frozen=True)
class Compared:
    """A published measurement beside the estimate: the most tokens in a second of a device, its peak and saved GiB."""

    published: Published
    tokens: float
    memory: float
    saved: float


def compared(published: Published) -> Compared:
    """Return the estimate of a published measurement."""
    tokens = torch.zeros(published.batch, LENGTH, dtype=torch.long, device="meta")
    split = BOTH if "tensor" in published.mesh else DATA
    between = {"x": "tensor"} if "tensor" in published.mesh else {}
    found = search_shardings(
        Llama(*published.sizes), published.mesh, machine(published.float8), tokens, only=split, between=between,
        per_rank="b", recompute=CHECKPOINTS[published.checkpoints], repeat={"model.layers.0": published.layers},
        kernels={"attention": (LENGTH + 1) / (2 * LENGTH)}, stored=torch.float32, names=NAMES,
    ).best  # fmt: skip
    devices = published.mesh.get("tensor", 1) * published.stages
    return Compared(
        published,
        tokens.numel() / float(found.seconds) / devices,
        float(found.peak) / 2**30,
        float(found.saved) / 2**30,
    )


def measure(console: Console) -> None:
    """Print the comparison."""
    table = Table(
        "model, GPUs", "tokens/s/GPU", "at most", "published ÷ at most", "GiB", "estimate, GiB", "estimate ÷ published"
    )
    for each in map(compared, PUBLISHED):
        one = each.published
        memory = ("", "", "") if one.memory is None else (
            f"{one.memory}", f"{each.memory:.1f}", f"{each.memory / one.memory:.2f}"
        )  # fmt: skip
        table.add_row(one.name, f"{one.tokens:,.0f}", f"{each.tokens:,.0f}", f"{one.tokens / each.tokens:.2f}", *memory)
    console.print(table)
