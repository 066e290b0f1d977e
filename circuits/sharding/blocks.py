"""The modules to which `fully_shard` is applied one by one: those that a model repeats."""

from collections.abc import Iterator

from torch import nn


def blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each block of repeated blocks in a ModuleList or Sequential, with its dotted path.

    A block has more than two parameters: a single layer is no block.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            kinds = [type(each) for each in module]
            for name, each in module.named_children():
                if kinds.count(type(each)) > 1 and sum([1 for _ in each.parameters()]) > 2:
                    yield f"{path}.{name}".lstrip("."), each


__all__ = ["blocks"]
