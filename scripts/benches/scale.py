# This file uses private names of torch.
# pyright: reportPrivateImportUsage=false
"""The cost of `shard` on several processes beside torch's own plan of tensor parallelism for the same layers."""

import copy
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils._python_dispatch import TorchDispatchMode

import models
from circuits import shard
from scripts.benches.timing import Spread, interleaved

K = 32
"""The width of a head."""


COLLECTIVES = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor")


class Sent(TorchDispatchMode):
    """Adds up the bytes that one rank gives to collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and call the operation."""
        if func.namespace == "_c10d_functional" and func._schema.name.partition("::")[2] in COLLECTIVES:
            self.bytes += args[0].numel() * args[0].element_size()
        return func(*args, **(kwargs or {}))


class Stack(nn.Module):
    """Layers of a transformer whose feed-forward network and attention a plan of torch's can name."""

    def __init__(self, m: int, layers: int, h: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([models.EncoderLayer(m, K, h, 4 * m, dropout=0.0) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output."""
        for layer in self.layers:
            x = layer(x)
        return x


def by_torch(model: Stack, mesh: Any) -> None:
    """Apply torch's plan: the first maps by columns, the last by rows; every rank has its own heads."""
    plan: dict[str, Any] = {f"attention.{name}": ColwiseParallel() for name in ("Lq", "Lk", "Lv")}
    plan |= {"attention.Lo": RowwiseParallel()}
    plan |= {"feed_forward.L1": ColwiseParallel(), "feed_forward.L2": RowwiseParallel()}
    for layer in model.layers:
        parallelize_module(layer, mesh, plan)
        attention: Any = layer.attention
        attention.h, attention.g = attention.h // mesh.size(), attention.g // mesh.size()


def step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs a forward and a backward pass."""

    def run() -> None:
        model(x).square().mean().backward()

    return run


def worker(rank: int, world: int, port: int, m: int, layers: int, x: int, blocks: int, folder: str) -> None:
    """Time both plans on one rank; rank 0 writes what it measured."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        torch.manual_seed(0)
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("tensor",))
        ours, given = Stack(m, layers, m // K), torch.randn(1, x, m)
        theirs, one = copy.deepcopy(ours), copy.deepcopy(ours)
        plan = shard(ours, mesh, {"h": "tensor", "f": "tensor"}, given, names={"L1.weight": "f m"})
        by_torch(theirs, mesh)
        torch.testing.assert_close(ours(given), theirs(given))
        sent = []
        for model in (ours, theirs):
            with Sent() as counted:
                step(model, given)()
            sent.append(counted.bytes)
        functions = {"shard": step(ours, given), "torch": step(theirs, given), "whole": step(one, given)}
        interleaved(functions, 2, 1)
        times = interleaved(functions, blocks, 1)
        if rank == 0:
            said = int(sum(each.bytes for each in plan.moves))
            torch.save((times, sent, said), Path(folder) / "measured")
    finally:
        dist.destroy_process_group()


def run(world: int, m: int, layers: int, x: int, blocks: int) -> tuple[dict[str, list[float]], list[int], int]:
    """Return the seconds of each variant on rank 0, the bytes that both plans send, and those that ours says."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        multiprocessing.spawn(worker, (world, port, m, layers, x, blocks, folder), world)
        return torch.load(Path(folder) / "measured", weights_only=True)


def measure(console: Console, world: int, m: int, x: int, layers: int, blocks: int) -> None:
    """Print the times of a training step by `shard` and by torch's plan, and the bytes that a rank sends.

    The first row, for one length of the sequence, is strong scaling: the last column of times is the ratio to the whole
    model, which every process runs by itself. In the second the sequence grows with the processes: weak scaling. With
    more processes than cores they wait for each other.
    """
    titles = ("m", "x", "shard", "/ torch's plan", "/ whole", "bytes sent", "by torch's plan", "said")
    cores = os.cpu_count()
    title = f"A training step of {layers} layers on {world} processes, by gloo on one machine with {cores} cores"
    table = Table(*titles, title=title)
    for length in dict.fromkeys([x, x * world]):
        times, sent, said = run(world, m, layers, length, blocks)
        ratios = []
        for name in ("torch", "whole"):
            pairs = zip(times["shard"], times[name], strict=True)
            ratios.append(Spread.of([ours / other for ours, other in pairs]).show())
        mine = Spread.of([each * 1e3 for each in times["shard"]]).show(" ms")
        table.add_row(f"{m}", f"{length}", mine, *ratios, f"{sent[0]:,}", f"{sent[1]:,}", f"{said:,}")
    console.print(table)


__all__ = ["measure"]
