"""Peak live bytes, and what `scripts.benches.memory` measures of the process that makes a real run."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import count, definitions, trace
from scripts.benches.memory import peak
from tests.cost.claims import attention
from tests.cost.test_peak import CASES

CALLS: dict[str, tuple[Callable[[], Any], tuple[tuple[int, ...], ...]]] = {
    "linear layers": (
        lambda: nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)), ((4096, 256),)
    ),
    "softmax": (lambda: nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 512), nn.Softmax(-1)), ((8192, 512),)),
    "in place": (CASES["in place"][0], ((16384, 64),)),
    "attention": (lambda: attention, ((1500, 64), (2500, 64), (2500, 64))),
    "fused attention": (lambda: F.scaled_dot_product_attention, ((1, 16, 2048, 64),) * 3),
    "mlp": (CASES["mlp"][0], ((1024, 64, 64),)),
    "layers": (CASES["layers"][0], ((32, 3, 96, 96),)),
    "gru": (lambda: nn.GRU(64, 256), ((64, 64, 64),)),
    "timm's resnet18": (CASES["timm's resnet18"][0], ((8, 3, 128, 128),)),
    "timm's vision transformer": (CASES["timm's vision transformer"][0], ((64, 3, 64, 64),)),
    "timm's convnext": (CASES["timm's convnext"][0], ((8, 3, 128, 128),)),
}  # fmt: skip
"""What is run, and the sizes of its inputs: so large that tensors outweigh what the libraries keep for themselves.

oneDNN's copies in another layout are not among what a diagram makes, so no run that needs large ones is here.
"""

ROOT = Path(__file__).parents[2]
EVERY_TENSOR_ITS_OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What makes glibc return memory to the system when it is freed; it reads this when a process starts."""


def made(name: str) -> tuple[Any, list[Tensor]]:
    """The callable, and its inputs."""
    torch.manual_seed(0)
    make, sizes = CALLS[name]
    target = make()
    return target.eval() if isinstance(target, nn.Module) else target, [torch.randn(each) for each in sizes]


def resident(name: str) -> int | None:
    """The most resident memory of this process during a run, beyond that before it."""
    target, inputs = made(name)
    with torch.no_grad(), definitions():
        return peak(lambda: target(*inputs), torch.device("cpu"))


@cache
def measured() -> dict[str, int | None]:
    """The resident memory of all runs, in a process of their own."""
    code = "from tests.cost.test_resident import CALLS, resident; import json, torch; torch.set_num_threads(1); "
    code += "print(json.dumps({name: resident(name) for name in CALLS}))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **EVERY_TENSOR_ITS_OWN_PAGES},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library may keep freed memory")
@pytest.mark.parametrize("name", CALLS)
def test_peak_is_the_memory_that_a_run_takes(name: str) -> None:
    found = measured()[name]
    if found is None:
        pytest.skip("the system does not report the peak")
    target, inputs = made(name)
    total = count(trace(target, *inputs)).total
    assert total.peak - sum([x.nbytes for x in inputs]) == pytest.approx(found, rel=0.1)
