"""What `FlopCounterMode` counts of real runs, with torch's formulas for the fused attention of the CPU too."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

aten = torch.ops.aten


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    """A formula of torch's registry as `custom_mapping` takes it: with tensors."""

    def call(*args: Any, **kwargs: Any) -> int:
        return formula(*args, **kwargs)

    call._get_raw = True  # type: ignore[attr-defined]
    return call


FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _raw(sdpa_flop),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _raw(sdpa_backward_flop),
}


def flops(run: Callable[[], Any]) -> tuple[int, Any]:
    """The FLOPs of a run, and its result."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        result = run()
    return counter.get_total_flops(), result


def floating(value: Any) -> list[Tensor]:
    return [x for x in _pytree.tree_leaves(value) if isinstance(x, Tensor) and x.is_floating_point()]


def reverse_flops(outputs: Any) -> int:
    """The FLOPs of autograd's reverse pass."""
    parts = [x for x in floating(outputs) if x.requires_grad]
    return flops(lambda: torch.autograd.backward(parts, [torch.ones_like(x) for x in parts]))[0]
