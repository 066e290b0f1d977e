# Attributes of modules are Tensor or Module to pyright.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Backward circuits of whole models, of this repository and of others, against torch.func.vjp in float64."""

import copy
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

import models
from circuits import CircuitError, Diagram, Halves, backward, definitions, find_circuit, forward_backward, trace
from circuits.laws.subject import Subject, owner_of
from models import basics, by_hand, linearity
from models.gated_feed_forward import GatedFeedForward
from models.parts import cache, convolve, unseen
from tests import peers
from tests.laws import subjects
from tests.models.test_zoo import MODELS, Entry, random_inputs, randomized

# --- Reference results ------------------------------------------------------------------------------------------------


def floats(value: Any) -> list[Tensor]:
    """Return the floating tensors in nested values, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def copied(value: Any) -> Any:
    """Return nested values with copies of their tensors, strides included."""
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, value)


@dataclass
class Wanted:
    """Torch's results for a call: its floating outputs, random cotangents for them, and the gradients."""

    outputs: list[Tensor]
    cotangents: list[Tensor]
    inputs: list[Tensor]
    parameters: dict[str, Tensor]


class Method(nn.Module):
    """A method of a module as a module of its own."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.owner, self.method = method.__self__, method.__name__

    def forward(self, *args: Any, **options: Any) -> Any:
        """Call the method."""
        return getattr(self.owner, self.method)(*args, **options)


def reference(f: Any, inputs: tuple[Any, ...], **options: Any) -> Wanted:
    """Return the results of torch.func.vjp, with seed 5; a module is copied, so its buffers do not change."""
    module = f if isinstance(f, nn.Module) else Method(f) if owner_of(f) is not None else None
    prefix = "" if module is f else "owner."
    module = copy.deepcopy(module)  # functional_call does not restore a tensor that has two names
    weights = dict(module.named_parameters()) if module is not None else {}
    buffers = dict(module.named_buffers()) if module is not None else {}
    leaves, form = tree_flatten(copied((inputs, options)))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def pure(given: list[Tensor], held: dict[str, Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for place, tensor in zip(places, given, strict=True):
            filled[place] = tensor
        args, named = tree_unflatten(filled, form)
        if module is not None:
            result = torch.func.functional_call(module, (held, copied(buffers)), tuple(args), named)
        else:
            result = f(*args, **named)
        return [*floats(result), torch.zeros(())]  # vjp needs at least one output

    torch.manual_seed(5)
    (*outputs, nothing), pull, *_ = torch.func.vjp(pure, [leaves[place] for place in places], copied(weights))
    torch.manual_seed(6)
    cotangents = [torch.randn_like(each) for each in outputs]
    found, held = pull([*cotangents, nothing])
    return Wanted(outputs, cotangents, found, {name.removeprefix(prefix): each for name, each in held.items()})


def near(found: Any, wanted: Any, name: str = "", tolerance: float = 1e-9) -> None:
    """Assert equality to 1e-9, absolute and relative: float64 keeps 16 digits, of which a model loses some."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}")


def gradients_near(found: dict[str, Tensor], wanted: Wanted, **options: float) -> None:
    """Assert that a dict of gradients has those of the inputs, in order, then those of the parameters, by name."""
    names = list(found)
    assert len(names) == len(wanted.inputs) + len(wanted.parameters)
    for name, theirs in zip(names, wanted.inputs, strict=False):
        near(found[name], theirs, name, **options)
    assert set(names[len(wanted.inputs) :]) == set(wanted.parameters)
    for name, theirs in wanted.parameters.items():
        near(found[name], theirs, name, **options)


def labels(diagram: Diagram) -> tuple[str, ...]:
    """Return the labels of the boxes without a rule, each once."""
    return tuple(sorted({box.label for box in diagram.opaque}))


def fraction_with_rules(diagram: Diagram, recorded: Diagram) -> float:
    """Return the fraction of the boxes of a recorded run that have rules."""
    return 1 - len(diagram.opaque) / max(1, len(list(recorded.box.calls())))


def agree(f: Any, *inputs: Any, opaque: tuple[str, ...] = (), tolerance: float = 1e-9, **options: Any) -> Diagram:
    """Assert that `backward` and `forward_backward` agree with torch in two runs; return the diagram of `backward`.

    `opaque` are the labels of the boxes without a rule.
    """
    wanted = reference(f, inputs, **options)
    joint, halves = backward(f, *inputs, **options), forward_backward(f, *inputs, **options)
    for diagram in (joint, halves.reverse):
        assert labels(diagram) == opaque
    kept = copied(dict(f.named_buffers())) if isinstance(f, nn.Module) else {}
    for _ in range(2):
        torch.manual_seed(5)
        gradients_near(joint(*copied(inputs), *wanted.cotangents, **options), wanted, tolerance=tolerance)
        restore_buffers(f, kept)
        torch.manual_seed(5)
        outputs, saved = halves.forward(*copied(inputs), **options)
        restore_buffers(f, kept)
        near(floats(outputs), wanted.outputs, "outputs", tolerance)
        gradients_near(halves.reverse(saved, *wanted.cotangents), wanted, tolerance=tolerance)
        assert sum(each.numel() * each.element_size() for each in saved) == halves.bytes
    return joint


def halves_agree(f: Any, *inputs: Any, opaque: tuple[str, ...] = (), **options: Any) -> Halves:
    """Assert that `forward_backward` agrees with torch; parameters that a method does not read have no gradient."""
    wanted = reference(f, inputs, **options)
    halves = forward_backward(f, *inputs, **options)
    assert labels(halves.reverse) == opaque
    torch.manual_seed(5)
    outputs, saved = halves.forward(*copied(inputs), **copied(options))
    near(floats(outputs), wanted.outputs, "outputs")
    found = halves.reverse(saved, *wanted.cotangents)
    unread = {name: each for name, each in wanted.parameters.items() if name not in found}
    assert not (unread and isinstance(f, nn.Module))
    assert not any(each.any() for each in unread.values())
    read = {name: each for name, each in wanted.parameters.items() if name in found}
    gradients_near(found, replace(wanted, parameters=read))
    return halves


def restore_buffers(f: Any, buffers: dict[str, Tensor]) -> None:
    """Restore the buffers of a module, which a run in training mode changes."""
    for name, value in buffers.items():
        f.get_buffer(name).copy_(value)


def r(*shape: int) -> Tensor:
    """Random numbers of this shape, in float64."""
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    """Random numbers above 0."""
    return r(*shape).exp()


# --- Layers of torch --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """How to make a module or a function and its inputs; `opaque` are the labels of its boxes without a rule."""

    make: Callable[[], Any]
    inputs: Callable[[], tuple[Any, ...]]
    opaque: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-9


MANY_STEPS = re.compile("RNN|LSTM|GRU|Transformer|Upsample, (cubic|trilinear)")
"""The names of cases with so many operations that they take a second."""


def parametrized(cases: dict[str, Any]) -> Any:
    """Parametrize a test by case; those with many operations are slow."""
    marks = {name: [pytest.mark.slow] * bool(MANY_STEPS.match(name)) for name in cases}
    return pytest.mark.parametrize("case", [pytest.param(cases[name], id=name, marks=marks[name]) for name in cases])


def layer(kind: Callable[..., nn.Module], *args: Any, train: bool = False, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a layer in float64, in evaluation mode unless `train`, with random parameters."""
    return lambda: randomized(kind(*args, **options).double()).train(train)


CLASSES = torch.tensor([2, 0, 1])
CAUSAL = torch.ones(3, 3, dtype=torch.bool).triu(1)

LAYERS: dict[str, Case] = {
    "Linear": Case(layer(nn.Linear, 4, 3), lambda: (r(2, 4),)),
    "Linear, one vector": Case(layer(nn.Linear, 4, 1, bias=False), lambda: (r(4),)),
    "Bilinear": Case(layer(nn.Bilinear, 4, 3, 2), lambda: (r(5, 4), r(5, 3))),
    "Conv1d": Case(layer(nn.Conv1d, 4, 6, 3, stride=2, padding=1, groups=2), lambda: (r(2, 4, 9),)),
    "Conv1d, circular": Case(layer(nn.Conv1d, 2, 3, 3, padding=2, padding_mode="circular"), lambda: (r(2, 2, 7),)),
    "Conv2d": Case(layer(nn.Conv2d, 3, 4, (3, 2), dilation=2, padding="same"), lambda: (r(2, 3, 7, 6),)),
    "Conv2d, reflected": Case(layer(nn.Conv2d, 1, 2, 3, padding=1, padding_mode="reflect"), lambda: (r(1, 5, 4),)),
    "Conv3d": Case(layer(nn.Conv3d, 2, 3, 2, stride=(1, 2, 1)), lambda: (r(1, 2, 4, 5, 3),)),
    "ConvTranspose1d": Case(layer(nn.ConvTranspose1d, 4, 2, 3, stride=2, output_padding=1), lambda: (r(2, 4, 5),)),
    "ConvTranspose2d": Case(layer(nn.ConvTranspose2d, 4, 6, 3, stride=2, groups=2), lambda: (r(1, 4, 3, 4),)),
    "ConvTranspose3d": Case(layer(nn.ConvTranspose3d, 2, 2, 2, padding=1), lambda: (r(1, 2, 3, 3, 3),)),
    "RNN": Case(layer(nn.RNN, 3, 4, num_layers=2, bidirectional=True), lambda: (r(3, 2, 3),)),
    "LSTM": Case(layer(nn.LSTM, 3, 4, num_layers=2, batch_first=True), lambda: (r(2, 3, 3), (r(2, 2, 4), r(2, 2, 4)))),
    "LSTM, projected": Case(layer(nn.LSTM, 3, 4, proj_size=2), lambda: (r(3, 3),)),
    "GRU": Case(layer(nn.GRU, 3, 4, bidirectional=True), lambda: (r(3, 2, 3), r(2, 2, 4))),
    "LSTMCell": Case(layer(nn.LSTMCell, 3, 4), lambda: (r(2, 3), (r(2, 4), r(2, 4)))),
    "GRUCell": Case(layer(nn.GRUCell, 3, 4), lambda: (r(3),)),
    "Embedding": Case(layer(nn.Embedding, 5, 3, padding_idx=1), lambda: (torch.tensor([[0, 1], [4, 0]]),)),
    "EmbeddingBag": Case(layer(nn.EmbeddingBag, 5, 3), lambda: (torch.tensor([[0, 1], [4, 0]]),)),
    "BatchNorm1d, train": Case(layer(nn.BatchNorm1d, 3, train=True), lambda: (r(5, 3),)),
    "BatchNorm2d, train": Case(layer(nn.BatchNorm2d, 3, train=True), lambda: (r(2, 3, 4, 5),)),
    "BatchNorm2d": Case(layer(nn.BatchNorm2d, 3), lambda: (r(1, 3, 1, 5),)),
    "InstanceNorm1d": Case(layer(nn.InstanceNorm1d, 3, affine=True), lambda: (r(2, 3, 4),)),
    "InstanceNorm2d, tracked": Case(
        layer(nn.InstanceNorm2d, 3, track_running_stats=True, train=True), lambda: (r(2, 3, 4, 2),)
    ),
    "GroupNorm": Case(layer(nn.GroupNorm, 2, 4), lambda: (r(2, 4, 3),)),
    "LayerNorm": Case(layer(nn.LayerNorm, (3, 4), bias=False), lambda: (r(2, 3, 4),)),
    "RMSNorm": Case(layer(nn.RMSNorm, 4), lambda: (r(4),)),
    "LocalResponseNorm": Case(layer(nn.LocalResponseNorm, 2), lambda: (r(2, 5, 3),)),
    "MultiheadAttention": Case(
        layer(nn.MultiheadAttention, 6, 2, batch_first=True), lambda: (r(2, 3, 6), r(2, 5, 6), r(2, 5, 6))
    ),
    "MultiheadAttention, other sizes": Case(
        layer(nn.MultiheadAttention, 6, 3, kdim=4, vdim=5, add_bias_kv=True),
        lambda: (r(3, 6), r(2, 4), r(2, 5)),
        options={"need_weights": False},
    ),
    "TransformerEncoderLayer": Case(
        layer(nn.TransformerEncoderLayer, 4, 2, 5, train=True, batch_first=True), lambda: (r(2, 3, 4),)
    ),
    "TransformerEncoderLayer, eval": Case(
        layer(nn.TransformerEncoderLayer, 4, 2, 5, norm_first=True, activation="gelu"), lambda: (r(3, 1, 4),)
    ),
    "TransformerDecoderLayer": Case(
        layer(nn.TransformerDecoderLayer, 4, 2, 5),
        lambda: (r(3, 2, 4), r(5, 2, 4), CAUSAL),
        options={"tgt_is_causal": True},
    ),
    "PReLU": Case(layer(nn.PReLU, 3), lambda: (r(2, 3, 4),)),
    "Softmax2d": Case(layer(nn.Softmax2d), lambda: (r(2, 3, 4, 1),)),
    "CrossEntropyLoss": Case(layer(nn.CrossEntropyLoss, label_smoothing=0.1), lambda: (r(3, 4), CLASSES)),
    "NLLLoss": Case(layer(nn.NLLLoss, reduction="sum"), lambda: (r(3, 4, 1), CLASSES.unsqueeze(1))),
    "TripletMarginLoss": Case(layer(nn.TripletMarginLoss), lambda: (r(3, 4), r(3, 4), r(3, 4))),
    "CosineEmbeddingLoss": Case(layer(nn.CosineEmbeddingLoss), lambda: (r(3, 4), r(3, 4), torch.tensor([1, -1, 1]))),
    "PoissonNLLLoss": Case(layer(nn.PoissonNLLLoss, full=True), lambda: (r(3, 4), positive(3, 4) * 3)),
    "MultiMarginLoss": Case(layer(nn.MultiMarginLoss), lambda: (r(3, 4), CLASSES)),
    "MultiLabelSoftMarginLoss": Case(layer(nn.MultiLabelSoftMarginLoss), lambda: (r(3, 4), r(3, 4).sigmoid())),
    "HingeEmbeddingLoss": Case(
        layer(nn.HingeEmbeddingLoss), lambda: (r(3), torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    ),
    "PairwiseDistance": Case(layer(nn.PairwiseDistance), lambda: (r(3, 4), r(3, 4))),
    "Unfold and Fold": Case(
        layer(nn.Sequential, nn.Unfold(2, stride=2), nn.Fold((5, 4), 2, stride=2)), lambda: (r(1, 2, 5, 4),)
    ),
    "Upsample, cubic": Case(layer(nn.Upsample, scale_factor=2, mode="bicubic"), lambda: (r(1, 2, 3, 4),)),
    "Upsample, trilinear": Case(
        layer(nn.Upsample, scale_factor=2, mode="trilinear", align_corners=True), lambda: (r(1, 1, 2, 3, 2),)
    ),
    "MaxUnpool2d": Case(
        lambda: lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), lambda: (r(1, 2, 4, 4),)
    ),
    "Dropout2d": Case(layer(nn.Dropout2d, 0.4, train=True), lambda: (r(2, 5, 2, 2),)),
    "weight_norm": Case(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4).double()), lambda: (r(2, 3),)),
    "spectral_norm": Case(
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4).double()).eval(), lambda: (r(2, 3),)
    ),
    "channels last": Case(
        lambda: nn.Conv2d(2, 3, 3).double().to(memory_format=torch.channels_last),
        lambda: (r(2, 2, 5, 6).to(memory_format=torch.channels_last),),
    ),
}


@pytest.mark.every(5, 2)
@parametrized(LAYERS)
def test_torch_layers(case: Case) -> None:
    """All operations of torch's layers have rules, except for those that a case lists as opaque."""
    model, inputs = case.make(), case.inputs()
    joint = agree(model, *inputs, opaque=case.opaque, **case.options)
    assert not joint.opaque or fraction_with_rules(joint, trace(model, *inputs, **case.options)) >= 0.95


REFUSED: dict[str, Case] = {
    "BatchNorm2d, mean of all": Case(layer(nn.BatchNorm2d, 3, train=True, momentum=None), lambda: (r(2, 3, 4, 5),)),
    "CTCLoss": Case(
        layer(nn.CTCLoss),
        lambda: (r(6, 2, 4), torch.tensor([[1, 2], [3, 1]]), torch.tensor([6, 5]), torch.tensor([2, 2])),
    ),
    "GaussianNLLLoss": Case(layer(nn.GaussianNLLLoss), lambda: (r(3, 4), r(3, 4), positive(3, 4))),
    "AdaptiveLogSoftmaxWithLoss": Case(
        layer(nn.AdaptiveLogSoftmaxWithLoss, 4, 6, [2, 3]), lambda: (r(3, 4), torch.tensor([0, 3, 5]))
    ),
}


@parametrized(REFUSED)
def test_layers_with_data_dependent_control_flow_are_refused(case: Case) -> None:
    """Their path through the code depends on the data, and a diagram is one path."""
    with pytest.raises(CircuitError, match="needs a value that depends on data"):
        backward(case.make(), *case.inputs())


# --- Functions of torch -----------------------------------------------------------------------------------------------

INFINITE = torch.tensor([1, torch.inf, torch.nan, -torch.inf], dtype=torch.float64)
INDEX = torch.tensor([[0, 2, 1], [1, 1, 0]])

FUNCTIONS: dict[str, Case] = {
    "fft": Case(lambda: lambda x: torch.fft.fft(x).abs(), lambda: (r(2, 5),), ("∂_fft_r2c", "∂abs")),
    "irfft": Case(
        lambda: lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=0) * 2, n=5, dim=0),
        lambda: (r(5, 2),),
        ("∂_fft_c2r", "∂_fft_r2c", "∂mul"),
    ),
    "fft2, ortho": Case(
        lambda: lambda x: torch.fft.rfft2(x, norm="ortho").real, lambda: (r(3, 4),), ("∂_fft_r2c", "∂view_as_real")
    ),
    "solve": Case(lambda: torch.linalg.solve, lambda: (r(3, 3), r(3, 2)), ("∂_linalg_solve_ex",)),
    "cholesky": Case(
        lambda: lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3).to(x)),
        lambda: (r(2, 3, 3),),
        ("∂linalg_cholesky_ex",),
    ),
    "eigh": Case(lambda: lambda x: torch.linalg.eigh(x + x.mT).eigenvalues, lambda: (r(3, 3),), ("∂_linalg_eigh",)),
    "qr": Case(lambda: torch.linalg.qr, lambda: (r(4, 3),), ("∂linalg_qr",)),
    "slogdet": Case(lambda: lambda x: torch.linalg.slogdet(x)[1], lambda: (r(2, 3, 3),), ("∂_linalg_slogdet",)),
    "matrix_exp": Case(lambda: torch.linalg.matrix_exp, lambda: (r(3, 3),), ("∂linalg_matrix_exp",)),
    "matrix_power": Case(lambda: lambda x: torch.linalg.matrix_power(x, 3), lambda: (r(3, 3),)),
    "multi_dot": Case(lambda: lambda a, b, c: torch.linalg.multi_dot([a, b, c]), lambda: (r(2, 3), r(3, 4), r(4, 2))),
    "chain of matmuls": Case(lambda: lambda a, b: torch.chain_matmul(a, b, a), lambda: (r(2, 3), r(3, 2))),
    "einsum, one letter thrice": Case(lambda: lambda x: torch.einsum("iii->i", x), lambda: (r(3, 3, 3),)),
    "einsum, ellipsis summed": Case(
        lambda: lambda a, b: torch.einsum("...i,i...->i", a, b), lambda: (r(2, 4, 3), r(3, 2, 4))
    ),
    "einsum, capitals": Case(lambda: lambda a, b: torch.einsum("aB, Bc", a, b), lambda: (r(2, 3), r(3, 4))),
    "einsum, sublists": Case(
        lambda: lambda a, b: torch.einsum(a, [0, 1], b, [1, 2], [2, 0]), lambda: (r(2, 3), r(3, 4))
    ),
    "einsum, size 1 stretched": Case(lambda: lambda a, b: torch.einsum("ij,ij->i", a, b), lambda: (r(2, 1), r(2, 3))),
    "einsum, no output": Case(lambda: lambda a, b: torch.einsum("i,j->", a, b), lambda: (r(2), r(3))),
    "tensordot over pairs": Case(
        lambda: lambda a, b: torch.tensordot(a, b, ([2, 0], [0, 1])), lambda: (r(2, 5, 3), r(3, 2))
    ),
    "scatter_reduce, amax": Case(
        lambda: lambda x, s: x.scatter_reduce(1, INDEX, s, "amax"), lambda: (r(2, 4), r(2, 3)), ("∂scatter_reduce",)
    ),
    "scatter_reduce, mean": Case(
        lambda: lambda x, s: x.scatter_reduce(1, INDEX, s, "mean"), lambda: (r(2, 4), r(2, 3)), ("∂scatter_reduce",)
    ),
    "sort, stable": Case(
        lambda: lambda x: torch.sort(x, dim=0, descending=True, stable=True).values, lambda: (r(4, 3),)
    ),
    "argsort and gather": Case(lambda: lambda x: x.gather(1, x.argsort(1)) * x, lambda: (r(3, 4),)),
    "topk, smallest": Case(lambda: lambda x: x.topk(2, dim=0, largest=False), lambda: (r(4, 3),)),
    "kthvalue": Case(lambda: lambda x: x.kthvalue(2, dim=1, keepdim=True).values, lambda: (r(3, 4),)),
    "cummax": Case(lambda: lambda x: x.cummax(1).values, lambda: (r(3, 4),)),
    "quantile": Case(lambda: lambda x: x.quantile(0.3, dim=1), lambda: (r(3, 5),)),
    "nanmean": Case(lambda: lambda x: x.nanmean(1) + x.nansum(1), lambda: (r(3, 5),)),
    "renorm": Case(lambda: lambda x: x.renorm(2, 0, 1.0), lambda: (r(3, 5),)),
    "cdist": Case(lambda: torch.cdist, lambda: (r(3, 2), r(4, 2)), ("∂_cdist_forward",)),
    "pdist": Case(lambda: F.pdist, lambda: (r(4, 3),), ("∂_pdist_forward",)),
    "grid_sample": Case(
        lambda: partial(F.grid_sample, align_corners=False), lambda: (r(1, 2, 3, 4), r(1, 2, 5, 2).tanh())
    ),
    "affine_grid": Case(lambda: lambda x: F.affine_grid(x, [2, 1, 3, 4], align_corners=True), lambda: (r(2, 2, 3),)),
    "lgamma": Case(
        lambda: lambda x: torch.lgamma(x) + torch.digamma(x), lambda: (positive(4),), ("∂digamma", "∂lgamma")
    ),
    "special functions": Case(
        lambda: (
            lambda x: torch.special.erfinv(x.tanh()) + torch.special.ndtr(x) + torch.i0(x) + torch.special.log_ndtr(x)
        ),
        lambda: (r(4),),
        ("∂erfinv", "∂i0", "∂special_log_ndtr"),
    ),
    "logit, xlogy": Case(
        lambda: lambda x: torch.logit(x.sigmoid(), eps=0.1) + torch.special.xlog1py(x, x.exp()), lambda: (r(6),)
    ),
    "copysign, ldexp": Case(
        lambda: lambda a, b: torch.copysign(a, b) + torch.ldexp(a, b.detach()), lambda: (r(4), r(4)), ("∂copysign",)
    ),
    "heaviside, nextafter": Case(lambda: lambda x: x * torch.heaviside(x.detach(), x.new_ones(())), lambda: (r(4),)),
    "nan_to_num": Case(lambda: lambda x: torch.nan_to_num(x + INFINITE), lambda: (r(4),)),
    "trapezoid, diff": Case(lambda: lambda x: torch.trapezoid(x, dim=0) + x.diff(dim=0).sum(0), lambda: (r(4, 3),)),
    "block_diag": Case(lambda: lambda a, b: torch.block_diag(a, b, a), lambda: (r(2, 3), r(1, 2))),
    "cartesian, meshgrid": Case(lambda: lambda a, b: torch.cartesian_prod(a, b).prod(1), lambda: (r(3), r(2))),
    "rot90, fliplr": Case(lambda: lambda x: torch.rot90(x, 1, (0, 1)) * torch.fliplr(x).T, lambda: (r(3, 4),)),
    "as_strided": Case(lambda: lambda x: x.as_strided((3, 2), (1, 2)) * 2, lambda: (r(6),), ("∂as_strided",)),
    "bucketize": Case(lambda: lambda x: x * torch.bucketize(x, torch.tensor([0.0, 1.0]).to(x)), lambda: (r(5),)),
    "addbmm": Case(lambda: torch.addbmm, lambda: (r(3, 4), r(2, 3, 5), r(2, 5, 4)), ("∂addbmm",)),
    "repeat_interleave by a tensor": Case(
        lambda: lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), 0, output_size=3), lambda: (r(3, 2),)
    ),
    "where, both scalars": Case(lambda: lambda x: torch.where(x > 0, 1.0, 0.0) * x, lambda: (r(4),)),
    "boolean mask": Case(lambda: lambda x: x * (x > 0) + (x <= 0).double(), lambda: (r(4),)),
    "polar": Case(lambda: lambda x: torch.polar(x, x).imag, lambda: (positive(4),), ("∂polar", "∂view_as_real")),
}


@pytest.mark.every(4)
@parametrized(FUNCTIONS)
def test_torch_functions(case: Case) -> None:
    """Rarely used functions are opaque boxes, and listed."""
    agree(case.make(), *case.inputs(), opaque=case.opaque)


# --- The zoo ----------------------------------------------------------------------------------------------------------

QUICK = ("mlp", "attention", "visual attention", "conv attention")
"""The models whose tests are fast."""

zoo = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)


def ready(entry: Entry, mode: bool = False) -> nn.Module:
    return randomized(entry.make(dtype=torch.float64)).train(mode)


@pytest.mark.every(1, 2)
@zoo
def test_models_of_the_zoo(name: str) -> None:
    """All their operations have rules; the gradients do not depend on the kernels that run."""
    model = ready(MODELS[name])
    agree(model, *random_inputs(MODELS[name], model, dtype=torch.float64, lead=()))


@pytest.mark.every(2, 2)
@zoo
def test_models_in_train_mode_with_a_batch(name: str) -> None:
    """With a batch of 2: batch statistics, dropout masks."""
    model = ready(MODELS[name], mode=True)
    agree(model, *random_inputs(MODELS[name], model, dtype=torch.float64, lead=(2,)))


@pytest.mark.every(2, 2)
@zoo
def test_models_with_axes_of_size_one(name: str) -> None:
    """An axis of size 1 does not show whether it is broadcast."""
    entry = MODELS[name]
    model = ready(entry)
    images = {"b", "h", "w", "i", "j", "u", "v"} & set(entry.sizes)
    sizes = {axis: 1 if axis == "b" or not images else size for axis, size in entry.sizes.items()}
    agree(model, *random_inputs(Entry(entry.make, sizes, tokens=entry.tokens), model, dtype=torch.float64, lead=(1,)))


@pytest.mark.every(1, 3)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("mlp", "conv attention") else pytest.mark.slow) for name in MODELS]
)
def test_models_recorded_without_sizes_run_at_all_sizes(name: str) -> None:
    """One backward circuit, made once and run at two sizes."""
    entry = MODELS[name]
    model = ready(entry)
    joint, halves = backward(model), forward_backward(model)
    assert labels(joint) == ()
    for factor in (1, 2):
        sizes = {axis: size * factor for axis, size in entry.sizes.items()}
        inputs = random_inputs(Entry(entry.make, sizes, tokens=entry.tokens), model, dtype=torch.float64, lead=())
        wanted = reference(model, tuple(inputs))
        gradients_near(joint(*inputs, *wanted.cotangents), wanted)
        outputs, saved = halves.forward(*inputs)
        near(floats(outputs), wanted.outputs)
        gradients_near(halves.reverse(saved, *wanted.cotangents), wanted)


@zoo
def test_kernels_and_definitions_have_the_same_gradients(name: str) -> None:
    model = ready(MODELS[name])
    inputs = tuple(random_inputs(MODELS[name], model, dtype=torch.float64, lead=()))
    with definitions():
        joint, wanted = backward(model, *inputs), reference(model, inputs)
        gradients_near(joint(*inputs, *wanted.cotangents), wanted)
    gradients_near(joint(*inputs, *wanted.cotangents), wanted)


# --- Every circuit of the repository ----------------------------------------------------------------------------------

SPACE = {"d": 4, "h": 3, "w": 5, "d'": 2, "h'": 3, "w'": 2, "l": 2, "i": 3, "j": 2}
GROUPED = {"g": 2, "c": 2, "k": 3, "...": (2,)}


def convolved(kind: str, n: int, *axes: str) -> subjects.Entry:
    """Return an entry for a convolution that `subjects` lacks, at small sizes."""
    sizes = {axis: size for axis, size in (SPACE | GROUPED).items() if axis in axes}
    return subjects.Entry(partial(getattr(convolve, f"{kind}_over"), n), sizes=sizes, options={"padding": 1})


CIRCUITS = subjects.CIRCUITS | {
    "grouped convolution 1d": convolved("grouped_convolution", 1, *"gckwj"),
    "grouped convolution 3d": convolved("grouped_convolution", 3, *"gckdhwlij"),
    "transposed convolution 3d": convolved("transposed_convolution", 3, *"ckd'h'w'lij"),
    "grouped transposed convolution 2d": convolved("grouped_transposed_convolution", 2, *"gckh'w'ij"),
    "grouped transposed convolution 3d": convolved("grouped_transposed_convolution", 3, *"gckd'h'w'lij"),
    "gated feed-forward": subjects.Entry(partial(GatedFeedForward, 8, 12)),
    "without hidden vectors": subjects.Entry(
        lambda: unseen.without_hidden, inputs=dict.fromkeys(("mask", "head_mask", "key_mask", "reached"), torch.bool)
    ),
    "finite padding": subjects.Entry(lambda: unseen.finite_padding),
    "in windows": subjects.Entry(
        lambda: unseen.in_windows,
        sizes={"i": 7, "j": 7, "i'": 3, "j'": 3},
        inputs={"kept": torch.bool},
        options={"w": 3, "s": 2},
    ),
}
"""Every circuit of `models`; those with a custom backward have tests of their own."""

LONG = re.compile(
    "multi-head|^attention,|attention, many|remember|recall|steps|coder|transformer|model|sequence|vision|resnet|unet"
    r"|block|visual|rotary|conv attention|normed|onvolution(?!, same)( \dd|,|$)"
)
"""The names of circuits whose tests are slow."""


def marked(names: Iterable[str], long: re.Pattern[str]) -> Any:
    """Parametrize a test by name; it is slow for the names that match `long`."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.slow if long.search(name) else ()) for name in names]
    )


UNTRACED = ("language model, stopping", "sequence to sequence, stopping")
"""Circuits whose number of steps depends on the data: `trace` refuses them."""


@pytest.mark.parametrize("name", UNTRACED)
def test_data_dependent_loops_cannot_be_differentiated(name: str) -> None:
    entry = CIRCUITS[name]
    subject = Subject("backward", entry.make(), entry.sizes, entry.inputs, 0, entry.options)
    inputs, options = subject.bound(subject.tensors(next(iter(subject.none_and_all()))))
    with pytest.raises(CircuitError, match=r"depends on data: `if stop is not None and ended\.all"):
        forward_backward(subject.f, *inputs, **options)


@pytest.mark.every(10, 3)
@marked([name for name in CIRCUITS if name not in UNTRACED], LONG)
def test_circuits_of_the_repository(name: str) -> None:
    """By `forward_backward`, without optional tensors and with all of them."""
    entry = CIRCUITS[name]
    subject = Subject("backward", entry.make(), entry.sizes, entry.inputs, 0, entry.options)
    for given in subject.none_and_all():
        inputs, options = subject.bound(subject.tensors(given))
        halves_agree(subject.f, *inputs, **options)


def circuits_in(module: ModuleType) -> set[str]:
    """Return the titles of the circuits that a module of `models` defines, functions and methods."""
    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
    classes = [each for each in own if isinstance(each, type)]
    functions = [each for each in own if not isinstance(each, type)]
    functions += [each for kind in classes for each in vars(kind).values() if callable(each)]
    return {found.title for each in functions if (found := find_circuit(each)) is not None}


def test_no_circuit_is_left_out() -> None:
    """Custom backwards are tested in test_by_hand; a cache is for inference, its gradient is in test_backward_edges.

    `basics` and `linearity` are examples of a few operations, which are tested one by one.

    `layers.Linear` has a signature for each instance, and none for the class.
    """
    made = [find_circuit(entry.make()) for entry in CIRCUITS.values()]
    tested = {found.title for found in made if found is not None}
    files = [import_module(each.name) for each in walk_packages(models.__path__, "models.")]
    written = set().union(*[circuits_in(file) for file in files if file not in (by_hand, cache, basics, linearity)])
    assert written - tested == set()


# --- Models of other libraries ----------------------------------------------------------------------------------------


class Logits(nn.Module):
    """A language model of the library transformers, reduced to one output tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token, or the last hidden state."""
        found = self.model(tokens, use_cache=False)
        return found.logits if hasattr(found, "logits") else found.last_hidden_state


def transformers_model(kind: str, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a small model of the library transformers."""

    def make() -> nn.Module:
        package = peers.peer("transformers")
        config = getattr(package, f"{kind}Config")(**options)
        cause = {"GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM"}
        model = getattr(package, cause.get(kind, f"{kind}ForCausalLM"))(config)
        return Logits(randomized(model.double()).eval())

    return make


def timm_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that makes a small model of timm."""
    return lambda: randomized(peers.timm().create_model(name, **options).double()).eval()


def pytorchcv_model(file: str, name: str) -> Callable[[], nn.Module]:
    """Return a function that makes a small model of pytorchcv."""
    return lambda: randomized(getattr(peers.peer(f"pytorchcv.models.{file}"), name)().double()).eval()


small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 11}
TOKENS = torch.tensor([[1, 5, 2, 9], [0, 3, 3, 10]])

PEERS: dict[str, Case] = {
    "GPT-2": Case(
        transformers_model("GPT2", n_embd=8, n_head=2, n_layer=2, vocab_size=11, n_positions=8), lambda: (TOKENS,)
    ),
    "Llama": Case(transformers_model("Llama", **small, num_key_value_heads=1), lambda: (TOKENS,), tolerance=1e-5),
    "Mistral": Case(
        transformers_model("Mistral", **small, num_key_value_heads=1, sliding_window=2),
        lambda: (TOKENS,),
        tolerance=1e-5,
    ),
    "Bert": Case(
        transformers_model("Bert", **small, max_position_embeddings=8, tie_word_embeddings=False), lambda: (TOKENS,)
    ),
    "ViT": Case(
        timm_model("vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=2, num_heads=2, num_classes=3),
        lambda: (r(1, 3, 32, 32),),
    ),
    "MLP-Mixer": Case(timm_model("mixer_s32_224", img_size=64, num_classes=3), lambda: (r(2, 3, 64, 64),)),
    "ConvNeXt": Case(
        timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 6, 8, 8), num_classes=3), lambda: (r(1, 3, 32, 32),)
    ),
    "ResNet-20": Case(pytorchcv_model("resnet_cifar", "resnet20_cifar10"), lambda: (r(1, 3, 32, 32),)),
    "pre-activation ResNet-20": Case(
        pytorchcv_model("preresnet_cifar", "preresnet20_cifar10"), lambda: (r(1, 3, 32, 32),)
    ),
    "DenseNet-40": Case(pytorchcv_model("densenet_cifar", "densenet40_k12_cifar10"), lambda: (r(1, 3, 32, 32),)),
    "nn.Transformer": Case(
        layer(nn.Transformer, 8, 2, 1, 2, 12, dropout=0.0, batch_first=True), lambda: (r(2, 3, 8), r(2, 4, 8))
    ),
}


@pytest.mark.every(1, 2)
@pytest.mark.slow
@parametrized(PEERS)
def test_models_of_other_libraries(case: Case) -> None:
    """At least 95 % of their boxes have rules; the rest is listed.

    Llama and Mistral compute their norms in float32 for any dtype, so two orders of summation agree only to 1e-5.
    """
    model, inputs = case.make(), case.inputs()
    joint = agree(model, *inputs, opaque=case.opaque, tolerance=case.tolerance)
    assert fraction_with_rules(joint, trace(model, *inputs)) >= 0.95


# --- Unusual functions ------------------------------------------------------------------------------------------------


def doubled_views(x: Tensor) -> Tensor:
    """Writes to a view, then to another view of the same tensor."""
    y = x * 2
    y[:, 1].mul_(x[:, 0])
    y.t()[2].copy_(x[:, 0])
    return y.sin() + x


ODD: dict[str, Case] = {
    "views written in place": Case(lambda: doubled_views, lambda: (r(3, 4),)),
    "outputs that are inputs": Case(lambda: lambda x, y: (x, x * y, y), lambda: (r(3), r(3))),
    "one output twice": Case(lambda: lambda x: (x.exp(),) * 2, lambda: (r(3),)),
    "an unused input": Case(lambda: lambda x, y: x.exp(), lambda: (r(3), r(2))),
    "a region without gradient": Case(lambda: torch.no_grad()(lambda x: x * 2), lambda: (r(3),)),
    "strides": Case(lambda: lambda x: x.reshape(-1).cumsum(0), lambda: (r(4, 3).t()[::2],)),
    "nested": Case(lambda: lambda given: {"a": given["x"] * given["y"][0]}, lambda: ({"x": r(3), "y": [r(3), r(1)]},)),
    "vmap": Case(lambda: lambda x, y: torch.func.vmap(torch.dot, in_dims=(0, None))(x, y), lambda: (r(4, 3), r(3))),
}


@parametrized(ODD)
def test_unusual_functions(case: Case) -> None:
    agree(case.make(), *case.inputs(), opaque=case.opaque)
