# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""Sharded models on real processes that talk by gloo, beside whole ones: tensor, data and sequence axes."""

import copy
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import models
from circuits import shard

pytestmark = pytest.mark.slow
NAMES = {"L1.weight": "f m"}


def vision_transformer() -> nn.Module:
    return models.VisionTransformer(28, 7, m=16, k=4, h=4, f=32, depth=2, classes=10, in_channels=1)


def language_model() -> nn.Module:
    return models.LanguageModel(12, 16, 4, 4, 32, 2)


def learned_positions() -> nn.Module:
    return models.LanguageModel(12, 16, 4, 4, 32, 2, learned_positions=16)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(2704, 5))


def resnet() -> nn.Module:
    return models.IdentityResNet(1, (4, 4, 8, 8), 3, 1).eval()


def unet() -> nn.Module:
    return models.UNet(2, 2, 1).eval()


def perceptron() -> nn.Module:
    return models.MLP(x=28, y=28, m=8, k=6)


def torch_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)


def image() -> Tensor:
    return torch.randn(4, 1, 28, 28)


def tokens() -> Tensor:
    return torch.randint(0, 12, (4, 5))


def text() -> Tensor:
    return torch.randint(0, 12, (4, 8))


def layer() -> nn.Module:
    return models.EncoderLayer(16, 4, 4, 32, groups=2)


def vectors() -> Tensor:
    return torch.randn(8, 16)


class Transformer(nn.Module):
    """A transformer of which source and target are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = models.Transformer(16, 4, 4, 32, 1, 1, dropout=0.0)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.inner(vectors, vectors)


HEADS = {"h": "tensor", "f": "tensor"}
SEQUENCE = {"x": "sequence"}
Case = tuple[Callable[[], nn.Module], Callable[[], Tensor], dict[str, int], dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "tensor": (vision_transformer, image, {"tensor": 2}, HEADS, {"axes": "b c H W", "names": NAMES}),
    "data": (vision_transformer, image, {"data": 2}, {"b": "data"}, {"axes": "b c H W"}),
    "vocabulary": (language_model, tokens, {"tensor": 2}, HEADS | {"v": "tensor"}, {"axes": "b x", "names": NAMES}),
    "data of a language model": (language_model, tokens, {"data": 2}, {"b": "data"}, {"axes": "b x"}),
    "data of a convolution": (convolution, image, {"data": 2}, {"b": "data"}, {"axes": "b c h w"}),
    "data of a residual network, whose statistics are given": (
        resnet, lambda: torch.randn(4, 1, 8, 8), {"data": 2}, {"b": "data"}, {"axes": "b c h w"},
    ),
    "data of a UNet, whose statistics are given": (
        unet, lambda: torch.randn(4, 1, 32, 32), {"data": 2}, {"b": "data"}, {"axes": "b c h w"},
    ),
    "data of an MLP": (
        perceptron, lambda: torch.randn(4, 28, 28), {"data": 2}, {"b": "data"}, {"axes": "b x y"},
    ),
    "data of torch's layer": (
        torch_layer, lambda: torch.randn(4, 5, 8), {"data": 2}, {"b": "data"}, {"axes": "b x m"},
    ),
    "data, with copies of the parameters": (
        vision_transformer, image, {"data": 2}, {"b": "data"}, {"axes": "b c H W", "replicate": "data"},
    ),
    "both, with copies of the parameters over one of two axes for data": (
        vision_transformer, image, {"copies": 2, "data": 2}, {"b": ("copies", "data")},
        {"axes": "b c H W", "replicate": "copies"},
    ),
    "two axes for data": (
        vision_transformer, image, {"outer": 2, "inner": 2}, {"b": ("outer", "inner")}, {"axes": "b c H W"},
    ),
    "tensor, and copies over data": (
        vision_transformer, image, {"data": 2, "tensor": 2}, HEADS | {"b": "data"},
        {"axes": "b c H W", "names": NAMES, "replicate": "data"},
    ),
    "both": (
        vision_transformer, image, {"data": 2, "tensor": 2}, HEADS | {"b": "data"},
        {"axes": "b c H W", "names": NAMES},
    ),
    "both of a language model": (
        language_model, tokens, {"data": 2, "tensor": 2}, HEADS | {"b": "data"}, {"axes": "b x", "names": NAMES},
    ),
    "heads with whole groups": (
        lambda: models.EncoderLayer(16, 4, 4, 32, groups=1), vectors, {"tensor": 4}, HEADS | {"g": None},
        {"names": NAMES},
    ),
    "tensor, and a sequence between": (
        language_model, text, {"tensor": 2}, HEADS | {"v": "tensor"},
        {"axes": "b x", "names": NAMES, "between": {"x": "tensor"}},
    ),
    "both, and a sequence between": (
        language_model, text, {"data": 2, "tensor": 2}, HEADS | {"b": "data", "v": "tensor"},
        {"axes": "b x", "names": NAMES, "between": {"x": "tensor"}},
    ),
    "sequence of a language model": (language_model, text, {"sequence": 2}, SEQUENCE, {"axes": "b x"}),
    "sequence of a transformer": (Transformer, vectors, {"sequence": 2}, SEQUENCE, {"axes": "x m"}),
    "sequence of grouped heads": (layer, vectors, {"sequence": 2}, SEQUENCE, {}),
    "sequence on four": (layer, vectors, {"sequence": 4}, SEQUENCE, {}),
    "data and sequence": (language_model, text, {"data": 2, "sequence": 2}, SEQUENCE | {"b": "data"}, {"axes": "b x"}),
    "data and sequence, with learned positions": (
        learned_positions, text, {"data": 2, "sequence": 2}, SEQUENCE | {"b": "data"}, {"axes": "b x"},
    ),
    "sequence, and copies over data, with learned positions": (
        learned_positions, text, {"data": 2, "sequence": 2}, SEQUENCE | {"b": "data"},
        {"axes": "b x", "replicate": "data"},
    ),
    "sequence and tensor": (
        layer, vectors, {"sequence": 2, "tensor": 2}, SEQUENCE | HEADS | {"g": "tensor"}, {"names": NAMES},
    ),
}  # fmt: skip


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def compare(name: str, dtype: torch.dtype, steps: int) -> None:
    """Train a sharded and a whole model for some steps on each rank, and compare all that they compute."""
    make, inputs, shape, split, options = CASES[name]
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    model, given = make(), inputs()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    expected = copy.deepcopy(model)
    mesh = init_device_mesh("cpu", tuple(shape.values()), mesh_dim_names=tuple(shape))
    shard(model, mesh, split, given, **options)
    parts, part = 1, 0
    for axis in (each for each in shape if each not in ("tensor", "sequence")):
        parts, part = parts * shape[axis], part * shape[axis] + mesh.get_local_rank(axis)
    optimizers = [torch.optim.SGD(each.parameters(), 0.05) for each in (model, expected)]
    for _ in range(steps):
        output, result = model(given.chunk(parts)[part]), expected(given)
        torch.testing.assert_close(output, result.chunk(parts)[part])
        for each, optimizer in zip((output, result), optimizers, strict=True):
            optimizer.zero_grad()
            each.square().mean().backward()
        for mine, other in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(whole(mine.grad), other.grad)
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(whole(mine.detach()), other.detach())


def worker(rank: int, world: int, port: int, names: list[str], folder: str) -> None:
    """Compare the models of some names on one rank; what fails is written into a file."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        for name in names:
            compare(name, torch.float64, 20 if name.startswith("sequence of") else 5)
            if name.startswith("sequence of"):
                compare(name, torch.float32, 20)
            (Path(folder) / f"{name} {rank}").write_text("equal")
    except BaseException:
        (Path(folder) / f"failed {rank}").write_text(traceback.format_exc())
        raise
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_training_on_processes_is_training_on_one(world: int, tmp_path: Path) -> None:
    names = [name for name, (_, _, shape, *_) in CASES.items() if torch.tensor([*shape.values()]).prod() == world]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (world, port, names, str(tmp_path)), world)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name} {rank}" for name in names for rank in range(world)}
