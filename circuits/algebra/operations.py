"""Operations on tensor networks: compose, outer product, transpose, adjoint, contract, rename, reorder.

Each returns a network with the same tensors as factors, for the adjoint their conjugates; nothing is contracted.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4, Figures 17 and 18.
"""

from collections.abc import Sequence

from torch import Tensor

from circuits.algebra.network import Network, dense
from circuits.algebra.wires import Wire, parse_sides
from circuits.errors import ShapeError, SignatureError


def compose(first: Network, second: Network) -> Network:
    """Return `first` followed by `second`: outputs are contracted with the inputs of the same name.

    The inputs are those of `first`, then the inputs of `second` that are not contracted. The outputs are those of
    `first`, with the outputs of `second` in place of the contracted ones, at the position of the first of them.

    Raises:
        SignatureError: If `first` has outputs and `second` has inputs, but no name is in both.
        ShapeError: If an output and the input of the same name differ in size.
    """
    shared = [name for name in first.outputs if name in second.inputs]
    if not shared and first.outputs and second.inputs:
        raise SignatureError(
            f"LinearMap: no output of {first.signature} is an input of {second.signature}; "
            "f.outer(g) is their outer product, and f.named(...) renames axes"
        )
    second = _renumbered(second, first)
    left = dict(zip(first.outputs, first.output_wires, strict=True))
    right = dict(zip(second.inputs, second.input_wires, strict=True))
    sizes = {**first.sizes, **second.sizes}
    for name in shared:
        ends = (name, sizes[left[name]].size), (name, sizes[right[name]].size)
        _require_equal_sizes(*ends, f"{first.signature} and {second.signature}")
    at = first.outputs.index(shared[0]) if shared else len(first.outputs)
    before = [name for name in first.outputs[:at] if name not in shared]
    after = [name for name in first.outputs[at:] if name not in shared]
    more = [name for name in second.inputs if name not in shared]
    made = Network(
        (*first.factors, *second.factors),
        (*first.inputs, *more),
        (*before, *second.outputs, *after),
        (
            *first.input_wires,
            *[right[name] for name in more],
            *[left[name] for name in before],
            *second.output_wires,
            *[left[name] for name in after],
        ),
        sizes,
    )
    return _joined(made, [(left[name], right[name]) for name in shared])


def outer(first: Network, second: Network) -> Network:
    """Return the outer product: on each side the axes of `first`, then those of `second`."""
    second = _renumbered(second, first)
    return Network(
        (*first.factors, *second.factors),
        (*first.inputs, *second.inputs),
        (*first.outputs, *second.outputs),
        (*first.input_wires, *second.input_wires, *first.output_wires, *second.output_wires),
        {**first.sizes, **second.sizes},
    )


def inner(first: Network, second: Network) -> Network:
    """Return `first` followed by `second` with the outputs of the same name transposed.

    Raises:
        SignatureError: If both have outputs, but none in common; or if such an output is also an input of `second`.
        ShapeError: If two outputs of the same name differ in size.
    """
    shared = [name for name in first.outputs if name in second.outputs]
    if not shared and first.outputs and second.outputs:
        raise SignatureError(
            f"LinearMap: inner: no output of {first.signature} is an output of {second.signature}; "
            "f.outer(g) is their outer product, and f.named(...) renames axes"
        )
    return compose(first, transpose(second, shared) if shared else second)


def transpose(network: Network, names: Sequence[str]) -> Network:
    """Return the network with these axes moved to the front of the other side; without names, with the sides swapped.

    Raises:
        SignatureError: If a name is not an axis of the network, or is on both sides.
    """
    sides = [network.ends[: len(network.inputs)], network.ends[len(network.inputs) :]]
    if not names:
        return _with_ends(network, sides[1], sides[0])
    for name in names:
        network.position(name)
    kept = [[end for end in side if end[0] not in names] for side in sides]
    moved = [[end for name in names for end in side if end[0] == name] for side in sides]
    return _with_ends(network, [*moved[1], *kept[0]], [*moved[0], *kept[1]])


def adjoint(network: Network) -> Network:
    """Return the transposed network of conjugate tensors."""
    factors = tuple([(tensor.conj(), wires) for tensor, wires in network.factors])
    return transpose(network._replace(factors=factors), ())


def contract(network: Network, name: str, other: str | None) -> Network:
    """Return the network with two axes contracted: `name` and `other`, or the input and the output `name` for None.

    Raises:
        SignatureError: If there are no such axes; or, with two names, if one is on both sides or they are equal.
        ShapeError: If the axes differ in size.
    """
    if other is None:
        if name not in network.inputs or name not in network.outputs:
            raise SignatureError(f"LinearMap: {name} is not on both sides of {network.signature}")
        positions = [network.inputs.index(name), len(network.inputs) + network.outputs.index(name)]
    else:
        positions = [network.position(name), network.position(other)]
        if name == other:
            ones = f"-> {name}" if name in network.inputs else f"{name} ->"
            raise SignatureError(
                f"LinearMap: contract takes two axes of {network.signature}, and {name} is one; composed with "
                f"LinearMap.identity({ones!r}, {name}=...) it is summed over"
            )
    first, second = [network.wires[position] for position in positions]
    ends = (name, network.sizes[first].size), (other or name, network.sizes[second].size)
    _require_equal_sizes(*ends, f"{network.signature}")
    left = [(position, end) for position, end in enumerate(network.ends) if position not in positions]
    count = len(network.inputs)
    inputs, outputs = [end for at, end in left if at < count], [end for at, end in left if at >= count]
    return _joined(_with_ends(network, inputs, outputs), [(first, second)])


def rename(network: Network, text: str) -> Network:
    """Return the network with the names in the text, in the order of its inputs and outputs.

    Raises:
        SignatureError: If the text is not that of a map, or does not have as many names on each side.
    """
    inputs, outputs = parse_sides(text)
    if (len(inputs), len(outputs)) != (len(network.inputs), len(network.outputs)):
        raise SignatureError(f"LinearMap: {text} does not have as many axes on each side as {network.signature}")
    renamed = {
        wire: Wire(network.sizes[wire].size, name)
        for name, wire in zip((*inputs, *outputs), network.wires, strict=True)
    }
    return network._replace(inputs=inputs, outputs=outputs, sizes={**network.sizes, **renamed})


def reorder(network: Network, text: str) -> Network:
    """Return the network with the axes of each side in the order of the text.

    Raises:
        SignatureError: If the text is not that of a map, or does not have the same names on each side.
    """
    inputs, outputs = parse_sides(text)
    if sorted(inputs) != sorted(network.inputs) or sorted(outputs) != sorted(network.outputs):
        raise SignatureError(f"LinearMap: {text} does not have the axes of {network.signature}")
    wires = [network.input_wires[network.inputs.index(name)] for name in inputs]
    wires += [network.output_wires[network.outputs.index(name)] for name in outputs]
    return network._replace(inputs=inputs, outputs=outputs, wires=tuple(wires))


def aligned(one: Network, two: Network) -> tuple[Tensor, Tensor] | None:
    """Return two dense tensors, with axes in the order of the first network; None if names or sizes of axes differ."""
    if (sorted(one.inputs), sorted(one.outputs)) != (sorted(two.inputs), sorted(two.outputs)):
        return None
    tensors = dense(one), dense(reorder(two, str(one.signature)))
    return tensors if tensors[0].shape == tensors[1].shape else None


def _with_ends(network: Network, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]) -> Network:
    """Return the network with these inputs and outputs, each a name and a wire."""
    return network._replace(
        inputs=tuple([name for name, _ in inputs]),
        outputs=tuple([name for name, _ in outputs]),
        wires=tuple([wire for _, wire in (*inputs, *outputs)]),
    )


def _renumbered(network: Network, other: Network) -> Network:
    """Return the network with its wires renumbered by numbers that `other` does not use."""
    start = max(other.sizes, default=-1) + 1
    return network._replace(
        factors=tuple([(tensor, tuple([wire + start for wire in wires])) for tensor, wires in network.factors]),
        wires=tuple([wire + start for wire in network.wires]),
        sizes={wire + start: size for wire, size in network.sizes.items()},
    )


def _joined(network: Network, pairs: Sequence[tuple[int, int]]) -> Network:
    """Return the network with the two wires of each pair merged into one."""
    same: dict[int, int] = {wire: wire for wire in network.sizes}
    for one, two in pairs:
        kept, merged = same[one], same[two]
        same = {wire: kept if root == merged else root for wire, root in same.items()}
    return network._replace(
        factors=tuple([(tensor, tuple([same[wire] for wire in wires])) for tensor, wires in network.factors]),
        wires=tuple([same[wire] for wire in network.wires]),
        sizes={wire: size for wire, size in network.sizes.items() if same[wire] == wire},
    )


def _require_equal_sizes(one: tuple[str, int], two: tuple[str, int], where: str) -> None:
    """Raise ShapeError if two axes, each a name and a size, differ in size; `where` is the signature in the message."""
    if one[1] != two[1]:
        ends = f"{one[0]} is {one[1]} and {two[0]} is {two[1]}"
        raise ShapeError(f"LinearMap: {ends} in {where}; axes of different sizes cannot be contracted")
