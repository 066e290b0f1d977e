"""`backward`: the forward pass and the reverse pass, one after the other, as one diagram."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.autodiff.joint import joint_of
from circuits.diagram import Diagram
from circuits.errors import entry_point


@entry_point
def backward(
    f: Any,
    /,
    *inputs: Any,
    wrt: str | Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Diagram:
    """Return the diagram of the vector-Jacobian product of a circuit, a module, a function, or a diagram.

    The diagram takes the input tensors of the forward pass, then one cotangent for each floating output: `cotangent`,
    or `cotangent_1`, `cotangent_2`, ... It returns a dict with the cotangent of each floating input under its argument
    name, and of each `nn.Parameter` under its dotted name (for a tied one, the first). Complex tensors count as
    floating; their cotangents follow torch's convention. A tensor passed twice is one input. A run of the diagram has
    the side effects of one run of the circuit: the statistics of a BatchNorm are updated once. Ctrl-C while the diagram
    is made acts as in `trace`.

    An operation without a reverse rule is a box `∂name`, in which torch computes the product; `Diagram.opaque` lists
    these boxes.

    Args:
        f: A circuit, a module, a function, or a diagram of one.
        inputs: Example inputs, as for `trace`; a diagram takes none.
        wrt: The names of the tensors to differentiate by, buffers too; a tied one by any of its names. None stands for
            all floating inputs and parameters.
        sizes: Sizes of axes that are not to stay free, as for `trace`.
        axes: The axes of the inputs, as for `trace`.
        kwargs: Keyword arguments of `f`.

    Raises:
        CircuitError: A gradient cannot be computed, for instance after an in-place change, hidden from autograd, of a
            value that gradients flow through; or `wrt` names no floating tensor.

    >>> import torch
    >>> gradient = backward(lambda x: x.log() / 2.0, torch.ones(()))
    >>> gradient(torch.tensor(4.0), torch.tensor(1.0))
    {'x': tensor(0.1250)}
    """
    return joint_of(f, inputs, wrt, sizes, axes, kwargs).whole()
