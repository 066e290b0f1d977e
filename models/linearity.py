"""The small circuits of section 2.4: einsum as a sequence of linear steps, and equal diagrams of linear maps.

F, G, H and K are examples of linear maps: `LinearMap`s of fixed numbers, and circuits that apply them. The equations of
Figure 18 hold for any.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4, Figures 17 and 18.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from circuits import LinearMap, circuit, einsum, rearrange

# Figure 17: einsum ----------------------------------------------------------------------------------------------------


@circuit("y k h, x k h -> y x h")
def scores_in_steps(query: Tensor, key: Tensor) -> Tensor:
    """Return the scores of attention: transpose, outer product and diagonal over h, inner product over k, scale."""
    key = rearrange(key, "x k h -> k x h")
    product = einsum(query, key, "y k h, k' x h -> y k k' x h")
    return einsum(product, "y k k x h -> y x h") * query.shape[1] ** -0.5


@circuit("y k h, x k h -> y x h")
def scores(query: Tensor, key: Tensor) -> Tensor:
    """Return the same by one einsum: linear steps that are broadcast over each other's axes are one step."""
    return einsum(query, key, "y k h, x k h -> y x h") * query.shape[1] ** -0.5


# Figure 18: linear maps -----------------------------------------------------------------------------------------------


def _sizes(names: str) -> dict[str, int]:
    """Return the sizes of some axes of the linear maps."""
    return {name: {"a": 3, "b": 4, "c": 5, "d": 2}[name] for name in names.split()}


def _map(signature: str) -> LinearMap:
    """Return a linear map of fixed numbers between -1 and 1."""
    sizes = torch.Size(_sizes(signature.replace("->", " ")).values())
    return LinearMap(torch.arange(1.0, 1 + sizes.numel(), device="cpu").square().sin().reshape(sizes), signature)


F_map, G_map, H_map, K_map = _map("a -> b c"), _map("a -> b"), _map("b -> c"), _map("b c -> d")
F_map_transposed = F_map.transpose("b")
"""F with its output b as an input: the associated transpose."""


@circuit("... a -> ... b c", fixed=_sizes("a b c"))
def F(vector: Tensor) -> Tensor:
    """Return a linear map from a to b and c."""
    return F_map(vector)


@circuit("... b a -> ... c", fixed=_sizes("a b c"))
def F_transposed(matrix: Tensor) -> Tensor:
    """Return F with its output b as an input: the associated transpose."""
    return F_map_transposed(matrix)


@circuit("b a -> c", fixed=_sizes("a b c"))
def F_transposed_by_broadcasting(matrix: Tensor) -> Tensor:
    """Return the same: F broadcast over another b, then the inner product of the two."""
    return einsum(F(matrix), "b b c -> c")


@circuit("... a -> ... b", fixed=_sizes("a b"))
def G(vector: Tensor) -> Tensor:
    """Return a linear map from a to b."""
    return G_map(vector)


@circuit("... b -> ... c", fixed=_sizes("b c"))
def H(vector: Tensor) -> Tensor:
    """Return a linear map from b to c."""
    return H_map(vector)


@circuit("-> b c", fixed=_sizes("b c"))
def H_transposed() -> Tensor:
    """Return H with its input as an output: a tensor."""
    return H_map.transpose("b")()


@circuit("b c -> d", fixed=_sizes("b c d"))
def K(matrix: Tensor) -> Tensor:
    """Return a linear map from b and c to d."""
    return K_map(matrix)


@circuit("a -> c", fixed=_sizes("a c"))
def G_then_H(vector: Tensor) -> Tensor:
    """Return H of G."""
    return H(G(vector))


@circuit("a -> c", fixed=_sizes("a c"))
def G_then_H_bent(vector: Tensor) -> Tensor:
    """Return the same: the outer product with the unit, and then the inner product, is the identity."""
    unit = torch.eye(_sizes("b")["b"], device="cpu")
    product = einsum(G(vector), unit, "b, b' b'' -> b b' b''")
    return H(einsum(product, "b b b'' -> b''"))


@circuit("a -> c", fixed=_sizes("a c"))
def G_then_H_wide(vector: Tensor) -> Tensor:
    """Return the same: H may stand before the inner product, broadcast over the unit's other axis."""
    unit = torch.eye(_sizes("b")["b"], device="cpu")
    return einsum(G(vector), H(unit), "b, b c -> c")


@circuit("a -> c", fixed=_sizes("a c"))
def G_then_H_shifted(vector: Tensor) -> Tensor:
    """Return the same: the unit and then H is the transpose of H, which may stand before G or after."""
    return einsum(G(vector), H_transposed(), "b, b c -> c")


@circuit("a, b -> d", fixed=_sizes("a b d"))
def product_then_maps(first: Tensor, second: Tensor) -> Tensor:
    """Return K of G and H of an outer product, each broadcast over the other's axis."""
    product = einsum(first, second, "a, b' -> b' a")
    return K(H(rearrange(G(product), "b' b -> b b'")))


@circuit("a, b -> d", fixed=_sizes("a b d"))
def maps_then_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the same: an outer product of linear maps may be taken after them."""
    return K(einsum(G(first), H(second), "b, c -> b c"))


FIGURES: Mapping[str, Mapping[str, Any]] = {
    "scores_in_steps": {"frame": False, "names": "query = Q, key = K"},
    "scores": {"frame": False, "names": "query = Q, key = K"},
    "F_transposed": {"depth": 0},
    "F_transposed_by_broadcasting": {"depth": 1, "frame": False},
    "G_then_H": {"depth": 1, "frame": False},
    "G_then_H_bent": {"depth": 1, "frame": False},
    "G_then_H_wide": {"depth": 1, "frame": False},
    "G_then_H_shifted": {"depth": 1, "frame": False},
    "product_then_maps": {"depth": 1, "frame": False},
    "maps_then_product": {"depth": 1, "frame": False},
}
"""The options with which `circuits.draw` draws Figures 17 and 18 as the paper does."""
