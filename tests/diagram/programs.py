"""Random programs: modules that do what other people's code does, one step after another on a pool of tensors.

A program is a list of steps. Each step takes two tensors of the pool, all of one shape, and returns a tensor for the
pool, or None if it only changes something: a tensor in place, the module, a container. `Program` is the module that
runs them.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
import collections
import copy
import random
import types
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circuits import circuit, rearrange

Step = Callable[["Program", Tensor, Tensor], Tensor | None]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    """Set the default dtype inside the `with`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def void(_: object) -> None:
    """Return None."""


def in_double(run: Callable[[], Tensor]) -> Tensor:
    with default_dtype(torch.float64):
        return run()


def autocast(run: Callable[[], Tensor]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return run()


def derivative(a: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = a.detach().requires_grad_()
        return torch.autograd.grad((leaf**3).sum(), leaf)[0]


def hooked(a: Tensor) -> Tensor:
    result = a * 2
    if result.requires_grad:
        result.register_hook(lambda gradient: gradient * 10)
    return result


def forked(run: Callable[[], Tensor]) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return run()


def saved_doubled(run: Callable[[], Tensor]) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved * 2, lambda saved: saved):
        return run()


@circuit("a b -> a b")
def softmax(x: Tensor) -> Tensor:
    """A circuit that programs call."""
    return x.softmax(-1)


PURE: dict[str, Step] = {
    "add": lambda m, a, b: a + b,
    "mul": lambda m, a, b: a * b.sigmoid(),
    "matmul": lambda m, a, b: a @ b.mT @ b / 8,
    "softmax": lambda m, a, b: softmax(a),
    "cat": lambda m, a, b: torch.cat([a, b], 0)[: a.shape[0]],
    "chunk": lambda m, a, b: torch.cat(a.chunk(2, -1)[::-1], -1),
    "where": lambda m, a, b: torch.where(a > b, a, b * 2),
    "index": lambda m, a, b: a[torch.arange(a.shape[0] - 1, -1, -1)],
    "gather": lambda m, a, b: a.gather(0, b.argsort(0)),
    "reduce": lambda m, a, b: a - b.mean(0, keepdim=True),
    "std": lambda m, a, b: a / (1 + b.std()),
    "sort": lambda m, a, b: a.sort(0).values,
    "cumsum": lambda m, a, b: a.cumsum(1),
    "view": lambda m, a, b: a.reshape(-1)[: a.numel()].view(a.shape),
    "same": lambda m, a, b: a.view(a.shape),
    "transpose": lambda m, a, b: (a.mT * b.mT).mT,
    "expand": lambda m, a, b: a[:1].expand_as(b),
    "rearrange": lambda m, a, b: rearrange(a, "p (q s) -> p (s q)", s=2),
    "linear": lambda m, a, b: F.linear(a, m.weight),
    "part": lambda m, a, b: m.part(a),
    "vmap": lambda m, a, b: torch.vmap(lambda row: row.sin() * m.weight[0])(a),
    "grad": lambda m, a, b: torch.func.grad(lambda t: (t * t * b).sum())(a),
    "checkpoint": lambda m, a, b: checkpoint(lambda t: t.tanh() * 2, a, use_reentrant=False),
    "double": lambda m, a, b: a.double().cos().to(b.dtype),
    "half": lambda m, a, b: a.half().to(a.dtype),
    "mask": lambda m, a, b: (a > b).to(a.dtype),
    "complex": lambda m, a, b: torch.fft.ifft(torch.fft.fft(a)).real,
    "out": lambda m, a, b: torch.add(a.detach(), b.detach(), out=torch.empty_like(a)),
}
CHANGES: dict[str, Step] = {
    "add_": lambda m, a, b: void(a.add_(b)),
    "imul": lambda m, a, b: void(a.__imul__(0.5)),
    "row": lambda m, a, b: a.__setitem__(0, b[-1].clone()),
    "column": lambda m, a, b: void(a[:, 1].copy_(b[:, 0].clone())),
    "slice": lambda m, a, b: a.__setitem__((slice(None), slice(1, None)), b[:, 1:] * 2),
    "masked_fill_": lambda m, a, b: void(a.masked_fill_(b > 1, 0.25)),
    "relu_": lambda m, a, b: void(F.relu_(a)),
    "through a view": lambda m, a, b: void(a.reshape(-1)[::2].mul_(3)),
    "through two": lambda m, a, b: void(a.t()[0].unsqueeze(0).sub_(1)),
    "through detach": lambda m, a, b: void(a.detach().mul_(2)),
    "through data": lambda m, a, b: void(a.data.add_(1)),
    "zero_": lambda m, a, b: void(a[0].zero_()),
    "unobserved": lambda m, a, b: void(torch.no_grad()(a.add_)(1)),
}
COPIES: dict[str, Step] = {
    "clone": lambda m, a, b: a.clone(),
    "detach": lambda m, a, b: a.detach(),
    "data": lambda m, a, b: a.data,
    "copy": lambda m, a, b: copy.copy(a) * 1,
    "deepcopy": lambda m, a, b: copy.deepcopy(a.detach()),
    "empty": lambda m, a, b: torch.empty_like(a).copy_(b),
    "new": lambda m, a, b: a.new_ones(a.shape) + torch.zeros(a.shape[1], dtype=a.dtype),
    "tensor": lambda m, a, b: a + torch.tensor([1.0, 2.0], dtype=a.dtype)[1],
    "numpy": lambda m, a, b: torch.from_numpy(np.sin(a.detach().numpy())),
    "tolist": lambda m, a, b: torch.tensor(a.tolist(), dtype=a.dtype),
    "constant": lambda m, a, b: a * m.constant[: a.shape[1]].to(a.dtype),
}
READS: dict[str, Step] = {
    "item": lambda m, a, b: b / (1 + abs(a.sum().item())),
    "int": lambda m, a, b: b * int(a.sum()),
    "branch": lambda m, a, b: b * 2 if a.sum() > 0 else b - 1,
    "any": lambda m, a, b: b.relu() if (a > 1).any() else b.exp().clamp(max=3),
    "equal": lambda m, a, b: a * 3 if torch.equal(a, b) else a + b,
    "size of a mask": lambda m, a, b: b + a[a > 0].sum() / max(1, a[a > 0].shape[0]),
    "masked sum": lambda m, a, b: b + a[a > 0].sum(),
    "count": lambda m, a, b: b * len(a.nonzero()) / 4,
    "unique": lambda m, a, b: b + torch.unique(a.round()).numel(),
    "length": lambda m, a, b: torch.cat([b[: int(a[0, 0] > 0) + 1], b[int(a[0, 0] > 0) + 1 :] * 2]),
    "argmax": lambda m, a, b: b + b[0, int(a[0].argmax())],
    "text": lambda m, a, b: b * float(f"{a.sum().detach():.1f}"),
}
QUESTIONS: dict[str, Step] = {
    "dtype": lambda m, a, b: a * 2 if a.dtype == torch.float32 else a * 3,
    "contiguous": lambda m, a, b: a * 2 if a.is_contiguous() else a * 3,
    "stride": lambda m, a, b: a + a.stride(0),
    "requires_grad": lambda m, a, b: a * 2 if a.requires_grad else a * 3,
    "is_leaf": lambda m, a, b: a * 2 if (a * 1).is_leaf else a * 3,
    "grad mode": lambda m, a, b: a * 2 if torch.is_grad_enabled() else a * 3,
    "training": lambda m, a, b: a * 2 if m.training else a * 3,
    "shape": lambda m, a, b: a * a.shape[0] if a.shape[0] > 2 else a,
    "finfo": lambda m, a, b: a.clamp(min=torch.finfo(a.dtype).tiny),
    "is": lambda m, a, b: a * 2 if a is b else a + b,
}
STATE: dict[str, Step] = {
    "buffer in place": lambda m, a, b: a * m.count.add_(1),
    "buffer bound": lambda m, a, b: m.observe(a) or a - m.mean.to(a.dtype),
    "attribute": lambda m, a, b: m.advance() or a * m.steps,
    "appended": lambda m, a, b: m.history.append(a.detach()) or a + m.history[0].to(a.dtype).mean(),
    "dict of the module": lambda m, a, b: m.cache.update(last=a.detach()) or None,
    "from the dict": lambda m, a, b: b + m.cache["last"].to(b.dtype).mean() if "last" in m.cache else b * 2,
    "weight": lambda m, a, b: void(torch.no_grad()(m.weight.mul_)(0.5)),
    "weight's data": lambda m, a, b: void(m.weight.data.clamp_(-0.5, 0.5)),
}
CONTAINERS: dict[str, Step] = {
    "dict": lambda m, a, b: {"a": a, "b": b}["a"] * 2,
    "deque": lambda m, a, b: collections.deque([a, b], maxlen=1).pop() + 1,
    "namespace": lambda m, a, b: types.SimpleNamespace(t=a * 2).t,
    "argument dict": lambda m, a, b: m.given.update(y=a + 1) or m.given["y"] * 2,
    "argument list": lambda m, a, b: m.given["list"].append(a) or torch.stack(m.given["list"]).sum(0),
    "popped": lambda m, a, b: m.given["list"].pop() + 1 if m.given["list"] else a,
    "lazy sum": lambda m, a, b: sum(row for row in (a * 2, b)),
    "function attribute": lambda m, a, b: void(setattr(softmax, "seen", 1)),
}
MODES: dict[str, Step] = {
    "no_grad": lambda m, a, b: torch.no_grad()(lambda: a * b)(),
    "enable_grad": lambda m, a, b: torch.enable_grad()(lambda: a * m.weight.sum())(),
    "inference": lambda m, a, b: torch.inference_mode()(lambda: a.sin())().clone(),
    "default dtype": lambda m, a, b: in_double(lambda: a.double() + torch.ones(a.shape[1])).to(a.dtype),
    "autocast": lambda m, a, b: autocast(lambda: a @ b.mT @ b).to(a.dtype),
    "autograd inside": lambda m, a, b: derivative(a),
    "hook": lambda m, a, b: hooked(a),
    "dropout": lambda m, a, b: F.dropout(a, 0.5, True),
    "noise": lambda m, a, b: a + torch.rand_like(b),
    "normal": lambda m, a, b: a + torch.randn(b.shape[1], dtype=a.dtype),
    "seed": lambda m, a, b: (torch.manual_seed(3), a + torch.rand(a.shape[1], dtype=a.dtype))[1],
    "generator": lambda m, a, b: a + torch.rand(a.shape, generator=torch.Generator().manual_seed(1)).to(a.dtype),
    "held generator": lambda m, a, b: a + torch.rand(a.shape, generator=m.generator).to(a.dtype),
    "default generator": lambda m, a, b: void(torch.default_generator.manual_seed(4)),
    "forked": lambda m, a, b: forked(lambda: a + torch.rand(a.shape[1], dtype=a.dtype)),
    "random": lambda m, a, b: a * 2 if random.random() < 0.5 else b,
    "numpy's random": lambda m, a, b: a + np.random.rand(),
    "saved hooks": lambda m, a, b: saved_doubled(lambda: a.sin() * b),
}
KINDS: dict[str, dict[str, Step]] = {
    "pure": PURE,
    "changes": CHANGES,
    "copies": COPIES,
    "reads": READS,
    "questions": QUESTIONS,
    "state": STATE,
    "containers": CONTAINERS,
    "modes": MODES,
}
KINDS["all"] = {name: step for kind in KINDS.values() for name, step in kind.items()}
STEPS = KINDS["all"]


class Program(nn.Module):
    """The module of a program.

    Args:
        plan: For each step its name and the indices in the pool of its two tensors.
        width: The size of the second axis of all tensors.
        whole: Whether the result is the whole pool; otherwise the sum of its floats.
    """

    def __init__(self, plan: list[tuple[str, int, int]], width: int, whole: bool = True) -> None:
        super().__init__()
        self.plan, self.whole = plan, whole
        self.weight = nn.Parameter(torch.randn(width, width) / width)
        self.part = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.register_buffer("count", torch.ones(()))
        self.register_buffer("mean", torch.zeros(width))
        self.constant = torch.linspace(1, 2, 16)
        self.generator = torch.Generator().manual_seed(7)
        self.steps, self.history, self.cache = 1, [], {}
        self.given: dict[str, Any] = {}

    def observe(self, a: Tensor) -> None:
        self.mean = 0.9 * self.mean + 0.1 * a.detach().mean(0)

    def advance(self) -> None:
        self.steps += 1

    def forward(self, x: Tensor, y: Tensor, given: dict[str, Any]) -> Any:
        self.given = given
        pool = [x, y, x * 1, y + 1]
        for name, first, second in self.plan:
            made = STEPS[name](self, pool[first % len(pool)], pool[second % len(pool)])
            pool += [] if made is None else [made]
        self.given = {}
        if self.whole:
            return tuple(pool)
        return sum((made.to(torch.float64).sin() * n).sum() for n, made in enumerate(pool))
