"""Naming rules of attention, embedding lookups and recurrent layers."""

import torch
import torch.nn.functional as F

from circuits.naming.axes import AxisNode
from circuits.naming.derivation import unify
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, rule
from circuits.naming.sizes import same_size


@rule("scaled_dot_product_attention")
def attention(operation: Operation, names: Names) -> None:
    """The output has the axes of the query, the last replaced by the value's last.

    Contracted axes are unified, as are the leading axes; the axes of the mask are unified with those of the scores.
    """
    query, key, value = (names.of(number) for number in operation.inputs[:3])
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    for side in (key, value):
        for here, there in zip(reversed(query[:-2]), reversed(side[:-2]), strict=False):
            unify(here, there)
    mask = operation.tensor(3, "attn_mask")
    if mask is not None:
        for axis, target in zip(reversed(names.of(mask)), (key[-2], query[-2], *reversed(query[:-2])), strict=False):
            unify(target, axis)
    names.put(operation.outputs[0], [*query[:-1], value[-1]])


@rule("embedding")
def embedding(operation: Operation, names: Names) -> None:
    """The output has the axes of the indices, followed by the table's last axis."""
    first, second = (names.of(number) for number in operation.inputs[:2])
    tokens, table = (second, first) if operation.function is torch.embedding else (first, second)
    names.put(operation.outputs[0], [*tokens, table[-1]])


@rule("embedding_bag")
def embedding_bag(operation: Operation, names: Names) -> None:
    """The output has the first axis of the indices and the table's last; the indices' second axis, the bag, is reduced.

    The output for indices of one axis, with offsets, is left unnamed.
    """
    tokens, table = (names.of(number) for number in operation.inputs[:2])
    if operation.function is F.embedding_bag and len(tokens) == 2:
        names.put(operation.outputs[0], [tokens[0], table[-1]])


@rule("one_hot")
def one_hot(operation: Operation, names: Names) -> None:
    """The output has the axes of the indices, followed by a new axis, the classes."""
    output = operation.outputs[0]
    names.put(output, [*names.of(operation.inputs[0]), AxisNode(names.shapes[output][-1])])


@rule("lstm gru rnn_tanh rnn_relu")
def recurrent(operation: Operation, names: Names) -> None:
    """The last axis of the sequence is replaced by the hidden axis; the axes of states are `layers batch hidden`.

    States are unnamed if the sequence is packed or has no batch axis.
    """
    axes, (sequence, *states) = names.of(operation.inputs[0]), operation.outputs
    packed = isinstance(operation.args[-1], bool) and len(names.shapes[operation.inputs[1]]) == 1
    hidden = AxisNode(names.shapes[sequence][-1])
    names.put(sequence, [*axes[:-1], hidden])
    if packed or len(axes) != 3:
        return
    batch = axes[0] if operation.args[-1] is True else axes[1]
    layers = AxisNode(names.shapes[states[0]][0])
    for state in states:
        size = names.shapes[state][-1]
        names.put(state, [layers, batch, hidden if same_size(hidden.root.size, size) else AxisNode(size)])


@rule("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def recurrent_cell(operation: Operation, names: Names) -> None:
    """The outputs have the batch axis of the input and the last axis of the state."""
    axes, before = (names.of(number) for number in operation.inputs[:2])
    for output in operation.outputs:
        names.put(output, [*axes[:-1], before[-1]])
