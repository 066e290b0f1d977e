"""The naming rules of every family of operations: the axes of the inputs and the expected axes of the outputs.

Every case runs twice: with symbolic sizes, and with all sizes equal, for which a rule that compares only sizes would
fail; in `test_naming` all sizes differ. An axis without a name is written `_`.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.config
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import trace
from circuits.diagram.boxes import Value
from circuits.naming.rules.registry import RULES


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    """Disable torch's cache of fake tensor results, which only costs time if a trace is one operation."""
    with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
        yield


Case = tuple[Callable[..., Any], str, str]


def shown(values: tuple[Value, ...]) -> str:
    return ", ".join([" ".join([axis or "_" for axis in value.axes]) for value in values])


def weight(*shape: int) -> Tensor:
    return torch.zeros(*shape)


ELEMENTWISE: list[Case] = [
    (torch.relu, "b m", "b m"),
    (F.relu, "b m", "b m"),
    (Tensor.relu, "b m", "b m"),
    (lambda x: x.clone().relu_(), "b m", "b m"),
    (nn.ReLU(), "b m", "b m"),
    (nn.GELU(), "b m", "b m"),
    (operator.neg, "b m", "b m"),
    (abs, "b m", "b m"),
    (lambda x: ~(x > 0), "b m", "b m"),
    (lambda x: 2**x - 1 / (3 - x), "b m", "b m"),
    (lambda x: (x // 2) % 3, "b m", "b m"),
    (lambda x: x.to(torch.float64).half(), "b m", "b m"),
    (lambda x, y: x.type_as(y), "b m, c b m", "b m"),
    (torch.add, "b m, m", "b m"),
    (torch.Tensor.add, "b m, b m", "b m"),
    (operator.add, "m, b m", "b m"),
    (operator.mul, "b 1 x, b y 1", "b y x"),
    (operator.truediv, "y, x y", "x y"),
    (operator.gt, "b m, m", "b m"),
    (operator.pow, "b m, m", "b m"),
    (lambda x, y, z: torch.where(x > 0, y, z), "b m, b m, m", "b m"),
    (torch.maximum, "y 1, x", "y x"),
    (torch.lerp, "b m, b m, b m", "b m"),
    (torch.addcmul, "b m, b m, m", "b m"),
    (lambda x, y: x.clamp(min=y), "b m, m", "b m"),
    (lambda x, y: x.masked_fill(y > 0, 0.0), "b y x, y x", "b y x"),
    (lambda x: x + weight(1, 3), "b y 3", "b y _"),
    (lambda x: x.sum(-1, keepdim=True) + x.mean(0, keepdim=True), "b m", "b m"),
    (F.mse_loss, "b m, b m", ""),
    (lambda x, y: F.l1_loss(x, y, reduction="none"), "b m, b m", "b m"),
    (torch.broadcast_tensors, "y 1, x", "y x, y x"),
    (lambda x, y: torch.meshgrid(x, y, indexing="ij"), "y, x", "y x, y x"),
    (lambda x, y: torch.meshgrid(x, y, indexing="xy"), "y, x", "x y, x y"),
    (lambda x: F.prelu(x, weight(1)), "b c h", "b c h"),
    (nn.PReLU(), "b c", "b c"),
    (torch.zeros_like, "b m", "b m"),
    (lambda x: torch.tril(x), "y x", "y x"),
    (lambda x: x.flip(0).roll(1, 1), "y x", "y x"),
    (lambda x: x.cumsum(0), "y x", "y x"),
    (lambda x: torch.view_as_real(torch.complex(x, x)), "y x", "y x _"),
    (lambda x, i: x.scatter(0, i.long(), 0.0), "y x, y x", "y x"),
    (lambda x, i, s: x.index_add(0, i.long(), s), "y x, y, y x", "y x"),
]

DROPOUT: list[Case] = [
    (F.dropout, "b m", "b m"),
    (torch.Tensor.contiguous, "b m", "b m"),
    (nn.Dropout(0.5), "b m", "b m"),
    (nn.Dropout2d(0.5), "b c h w", "b c h w"),
    (nn.AlphaDropout(0.5), "b m", "b m"),
    (lambda x: torch.dropout(x, 0.5, True), "b m", "b m"),
]

LINEAR: list[Case] = [
    (nn.Linear(6, 5), "b y 6", "b y _"),
    (F.linear, "b m, k m", "b k"),
    (F.linear, "b m, k m, k", "b k"),
    (F.linear, "b m, b m", "b b'"),
    (torch.matmul, "b y k, k x", "b y x"),
    (operator.matmul, "b y k, b k x", "b y x"),
    (Tensor.matmul, "h y k, b 1 k x", "b h y x"),
    (torch.matmul, "k, b k x", "b x"),
    (torch.matmul, "b y k, k", "b y"),
    (torch.matmul, "k, k", ""),
    (torch.mm, "y k, k x", "y x"),
    (torch.bmm, "b y k, b k x", "b y x"),
    (torch.mv, "y k, k", "y"),
    (torch.dot, "k, k", ""),
    (torch.outer, "y, x", "y x"),
    (torch.inner, "y k, b x k", "y b x"),
    (torch.addmm, "x, y k, k x", "y x"),
    (torch.baddbmm, "b y x, b y k, b k x", "b y x"),
    (torch.addmv, "y, y k, k", "y"),
    (torch.addr, "y x, y, x", "y x"),
    (lambda x: x @ x.mT, "b y k", "b y y'"),
    (lambda x: x.T @ x, "y k", "k k'"),
    (lambda x, y: torch.einsum("byk,bxk->byx", x, y), "b y k, b x k", "b y x"),
    (lambda x, y: torch.einsum("...yk,...xk->...yx", x, y), "b h y k, b h x k", "b h y x"),
    (lambda x, y: torch.einsum("ij,jk", x, y), "y k, k x", "y x"),
    (lambda x: torch.einsum("ii->i", x), "y y", "y"),
    (lambda x, y: torch.tensordot(x, y, 1), "y k, k x", "y x"),
    (lambda x, y: torch.tensordot(x, y, ([1], [1])), "y k, x k", "y x"),  # pyright: ignore[reportArgumentType]
    (lambda x, y, w: F.bilinear(x, y, w), "b y, b x, k y x", "b k"),
    (nn.Bilinear(6, 5, 4), "b 6, b 5", "b _"),
    (torch.cdist, "b y k, b x k", "b y x"),
    (torch.cosine_similarity, "b k, b k", "b"),
]

ATTENTION: list[Case] = [
    (F.scaled_dot_product_attention, "b h y k, b h x k, b h x v", "b h y v"),
    (F.scaled_dot_product_attention, "b h y k, b h x k, b h x v, y x", "b h y v"),
    (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), "y k, x k, x k", "y k"),
    (lambda x: F.scaled_dot_product_attention(x, x, x), "b y k", "b y k"),
    (lambda i: F.embedding(i.long(), weight(9, 5)), "b y", "b y _"),
    (lambda i, w: F.embedding(i.long(), w), "b y, n m", "b y m"),
    (lambda i: F.one_hot(i.long(), 10), "b y", "b y _"),
    (nn.LSTM(5, 4, batch_first=True), "b y 5", "b y _, _ b _, _ b _"),
    (nn.GRU(5, 4), "y b 5", "y b _, _ b _"),
    (nn.RNN(5, 4), "y 5", "y _, _ _"),
    (nn.LSTMCell(5, 4), "b 5", "b _, b _"),
]

WINDOWS: list[Case] = [
    (nn.Conv1d(5, 3, 3, padding=1), "b 5 y", "b _ y"),
    (nn.Conv1d(5, 3, 3), "5 y", "_ y-2"),
    (nn.Conv2d(5, 3, 3), "b 5 h w", "b _ h-2 w-2"),
    (nn.Conv2d(5, 3, 3, padding="same"), "b 5 h w", "b _ h w"),
    (nn.Conv2d(5, 3, 2, stride=2), "b 5 4*h 2*w", "b _ 2*h w"),
    (F.conv2d, "b c h w, k c 1 1", "b k h w"),
    (lambda x, w: F.conv2d(x, w, groups=8), "b 8 h w, 8 1 1 1", "b _ h w"),
    (torch.conv3d, "b c x y z, k c 1 1 1", "b k x y z"),
    (lambda x, w: torch.conv1d(x, w, stride=4), "b c 8*y, k c 4", "b k 2*y"),
    (nn.ConvTranspose1d(5, 3, 2, stride=2), "b 5 y", "b _ 2*y"),
    (nn.ConvTranspose2d(5, 3, 2, stride=2), "b 5 h w", "b _ 2*h 2*w"),
    (F.conv_transpose2d, "b c h w, c k 3 3", "b k h+2 w+2"),
    (nn.ConvTranspose3d(5, 3, 2, stride=2), "b 5 x y z", "b _ 2*x 2*y 2*z"),
    (nn.MaxPool1d(2), "b c 2*y", "b c y"),
    (nn.MaxPool2d(2), "b c 4*h 4*w", "b c 2*h 2*w"),
    (lambda x: F.max_pool2d(x, 2, return_indices=True), "b c 2*h 2*w", "b c h w, b c h w"),
    (lambda x: F.max_pool2d(x, 3, stride=1, padding=1), "b c h w", "b c h w"),
    (lambda x: torch.max_pool2d(x, (1, 2)), "b c h 2*w", "b c h w"),
    (nn.AvgPool3d(2), "b c 2*x 2*y 2*z", "b c x y z"),
    (lambda x: F.avg_pool1d(x, 3, 1), "b c y", "b c y-2"),
    (lambda x: F.lp_pool2d(x, 2.0, 2), "b c 2*h 2*w", "b c h w"),
    (nn.AdaptiveAvgPool2d(3), "b c h w", "b c _ _"),
    (nn.AdaptiveMaxPool1d(1), "b c y", "b c _"),
    (lambda x: F.adaptive_avg_pool2d(x, (None, 3)), "b c h w", "b c h _"),
    (lambda x: F.unfold(x, 2, stride=2), "b c 2*h 2*w", "b 4*c (h w)"),
    (lambda x: F.unfold(x, (3, 1), padding=(1, 0)), "c h w", "3*c (h w)"),
    (lambda x: F.fold(F.unfold(x, 2, stride=2).relu(), (8, 12), 2, stride=2), "b c 8 12", "b c _ _"),
    (lambda x: F.fold(F.unfold(x, 2, stride=2).relu(), x.shape[-2:], 2, stride=2), "b c 2*h 2*w", "b c 2*h 2*w"),
    (lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[-2:], 3, padding=1), "b c h w", "b c h w"),
    (lambda x: F.fold(x, (4, 6), 2, stride=2), "b 8 6", "b _ _ _"),
    (nn.Upsample(scale_factor=2), "b c h w", "b c 2*h 2*w"),
    (lambda x: F.interpolate(x, scale_factor=(2, 1)), "b c h w", "b c 2*h w"),
    (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "b c h w", "b c 2*h 2*w"),
    (lambda x: F.interpolate(x, size=(3, 3)), "b c h w", "b c _ _"),
    (lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:]), "b c h w", "b c h w"),
    (lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2), "b c 2*h 2*w", "b c 2*h 2*w"),
    (lambda x: F.pad(x, (1, 1, 0, 2)), "b c h w", "b c h+2 w+2"),
    (lambda x: F.pad(x, (1, 1), mode="reflect"), "b c w", "b c w+2"),
    (nn.ZeroPad2d(1), "b c h w", "b c h+2 w+2"),
    (lambda x: F.conv1d(F.pad(x, (1, 1)), weight(5, 5, 3)), "b 5 y", "b _ y"),
    (nn.PixelShuffle(2), "b 4*c h w", "b c 2*h 2*w"),
    (nn.PixelUnshuffle(2), "b c 2*h 2*w", "b 4*c h w"),
    (lambda x: x.unfold(1, 2, 1), "b y", "b y-1 _"),
    (lambda x: x.unfold(1, 2, 2), "b 2*y", "b y _"),
]

NORMALISING: list[Case] = [
    (nn.BatchNorm1d(5), "b 5", "b _"),
    (nn.BatchNorm2d(6).eval(), "b 6 h w", "b _ h w"),
    (lambda x, w: F.batch_norm(x, None, None, w, w, training=True), "b c h w, c", "b c h w"),
    (nn.LayerNorm(5), "b y 5", "b y _"),
    (lambda x, w: F.layer_norm(x, w.shape, w), "b y m, m", "b y m"),
    (lambda x, w: F.rms_norm(x, w.shape, w), "b y m, y m", "b y m"),
    (nn.GroupNorm(2, 4), "b 4 h w", "b _ h w"),
    (nn.InstanceNorm2d(4), "b 4 h w", "b _ h w"),
    (nn.RMSNorm(5), "b y 5", "b y _"),
    (nn.LocalResponseNorm(2), "b c h", "b c h"),
    (lambda x: torch.softmax(x, -1), "b m", "b m"),
    (lambda x: F.softmax(x, dim=1), "b m x", "b m x"),
    (lambda x: x.softmax(0), "b m", "b m"),
    (nn.LogSoftmax(-1), "b m", "b m"),
    (nn.Softmin(-1), "b m", "b m"),
    (lambda x: F.gumbel_softmax(x), "b m", "b m"),
    (F.normalize, "b m", "b m"),
    (nn.GLU(), "b 2*m", "b m"),
    (lambda x: x.sort(0), "b m", "b m, b m"),
    (lambda x: x.argsort(), "b m", "b m"),
]

JOINING: list[Case] = [
    (lambda x, y: torch.cat([x, y]), "b m, b m", "2*b m"),
    (lambda x, y: torch.cat((x, y), dim=-1), "b c, b d", "b c+d"),
    (lambda x, y, z: torch.concat([x, y, z], 1), "b c, b d, b c", "b 2*c+d"),
    (lambda x, y: torch.cat([x, y.expand(x.shape[0], 1, x.shape[2])], 1), "b y m, 1 1 m", "b y+1 m"),
    (lambda x, y: torch.cat([x, y], 1).split([x.shape[1], y.shape[1]], 1), "b c, b d", "b c, b d"),
    (lambda x: torch.cat(x.chunk(2, 1), 1), "b 2*c", "b 2*c"),
    (lambda x: torch.cat([x, x], 1).chunk(2, 1), "b c", "b c, b c"),
    (lambda x, y: torch.hstack([x, y]), "b c, b d", "b c+d"),
    (lambda x, y: torch.vstack([x, y]), "b c, d c", "b+d c"),
    (lambda x, y: torch.stack([x, y]), "b m, b m", "_ b m"),
    (lambda x, y: torch.stack([x, y], dim=-1), "b m, b m", "b m _"),
    (lambda x: x.chunk(2, -1), "b 2*m", "b m, b m"),
    (lambda x: torch.chunk(x, 2), "2*b m", "b m, b m"),
    (lambda x: torch.split(x, 1), "2 m", "_ m, _ m"),
    (lambda x: x.split([3, 5], 1), "b 8", "b _, b _"),
    (lambda x: torch.tensor_split(x, 2, 1), "b 4*m", "b 2*m, b 2*m"),
    (lambda x: x.unbind(1), "b 2 m", "b m, b m"),
    (lambda x: tuple(x), "2 m", "m, m"),
]

SHAPES: list[Case] = [
    (lambda x: x.flatten(1), "b c h w", "b (c h w)"),
    (nn.Flatten(), "b c h w", "b (c h w)"),
    (lambda x: torch.flatten(x, 0, 1), "b y m", "(b y) m"),
    (lambda x: x.reshape(x.shape[0], -1), "b y m", "b (y m)"),
    (lambda x: x.view(-1, x.shape[2]), "b y m", "(b y) m"),
    (lambda x: x.flatten(1).reshape(x.shape), "b y m", "b y m"),
    (lambda x: x.flatten().view(x.shape[0], -1), "b y m", "b (y m)"),
    (lambda x: x.flatten(2).transpose(1, 2), "b c h w", "b (h w) c"),
    (lambda x: x.unflatten(1, (2, -1)), "b 2*m", "b _ _"),
    (nn.Unflatten(1, (2, 3)), "b 6", "b _ _"),
    (lambda x: x.unsqueeze(1).reshape(x.shape[0], -1), "b m", "b m"),
    (lambda x: x.ravel(), "y x", "(y x)"),
    (lambda x, y: x.view_as(y), "b y m, b y m", "b y m"),
    (lambda x: x.T.reshape(-1), "y x", "(x y)"),
]

MOVING: list[Case] = [
    (lambda x: x.permute(2, 0, 1), "b y m", "m b y"),
    (lambda x: torch.permute(x, (0, 2, 1)), "b y m", "b m y"),
    (lambda x: x.permute(dims=[0, -1, 1]), "b y m", "b m y"),
    (lambda x: x.transpose(0, 1), "b y m", "y b m"),
    (lambda x: torch.transpose(x, dim0=-1, dim1=1), "b y m", "b m y"),
    (lambda x: x.swapaxes(0, 2), "b y m", "m y b"),
    (lambda x: x.movedim(0, -1), "b y m", "y m b"),
    (lambda x: torch.movedim(x, (0, 1), (1, 2)), "b y m", "m b y"),
    (lambda x: x.moveaxis(-1, 1), "b c h w", "b w c h"),
    (lambda x: x.t(), "y x", "x y"),
    (lambda x: x.T, "y x", "x y"),
    (lambda x: x.mT, "b y x", "b x y"),
    (lambda x: torch.adjoint(x), "b y x", "b x y"),
    (lambda x: torch.rot90(x), "y x", "x y"),
    (lambda x: torch.rot90(x, 2), "y x", "y x"),
    (lambda x: x.squeeze(1), "b 1 m", "b m"),
    (lambda x: x.squeeze(), "b 1 m 1", "b m"),
    (lambda x: x.squeeze((1, 3)), "b 1 m 1", "b m"),
    (lambda x: torch.unsqueeze(x, -1), "b m", "b m _"),
    (lambda x: x.unsqueeze(1).expand(-1, 4, -1), "b m", "b _ m"),
    (lambda x: x.expand(3, -1, -1), "b m", "_ b m"),
    (lambda x, y: x.expand_as(y), "1 m, b m", "b m"),
    (lambda x: torch.broadcast_to(x, (3, *x.shape)), "m", "_ m"),
    (lambda x: x.repeat(1, 2), "b m", "b 2*m"),
    (lambda x: x.repeat(3, 1, 1), "b m", "_ b m"),
    (lambda x: x.tile(2), "b m", "b 2*m"),
    (lambda x: x.repeat_interleave(2, 0), "b m", "2*b m"),
    (lambda x: x.repeat_interleave(2), "m", "2*m"),
    (lambda x: x.diagonal(dim1=1, dim2=2), "b y y", "b y"),
    (torch.diag_embed, "b y", "b y y'"),
    (lambda x: x.diag(), "y", "y y'"),
]

INDEXING: list[Case] = [
    (lambda x: x[0], "b m", "m"),
    (lambda x: x[:, -1], "b y m", "b m"),
    (lambda x: x[..., 0], "b y m", "b y"),
    (lambda x: x[:, None], "b m", "b _ m"),
    (lambda x: x[..., None, :], "b m", "b _ m"),
    (lambda x: x[1:, :-1], "y x", "y-1 x-1"),
    (lambda x: x[:, 1:-1], "b y", "b y-2"),
    (lambda x: x[:, ::2], "b 2*y", "b y"),
    (lambda x: x[:, :3], "b y", "b _"),
    (lambda x: x[:, -3:], "b y", "b _"),
    (lambda x: x[:, :, 0, None], "b y m", "b y _"),
    (lambda x, i: x[i.long()], "n m, b y", "b y m"),
    (lambda x, i: x[:, i.long()], "b n m, y", "b y m"),
    (lambda x, i: x[:, i.long(), 0], "b n m, y", "b y"),
    (lambda x, i: x[i.long(), :, i.long()], "n m n, y", "_ m"),
    (lambda x, i: x[i.long(), i.long()], "n n m, y", "_ m"),
    (lambda x: x[[0, 1]], "b m", "_ m"),
    (lambda x: x.select(1, 0), "b y m", "b m"),
    (lambda x: x.narrow(1, 0, 2), "b y m", "b _ m"),
    (lambda x, i: x.index_select(1, i.long()), "b n m, y", "b y m"),
    (lambda x, i: x.gather(1, i.long()), "b n, b y", "b y"),
    (lambda x, i: torch.take_along_dim(x, i.long(), 1), "b n, b y", "b y"),
    (lambda x: x.topk(2), "b m", "b _, b _"),
    (lambda x, y: x.clone().index_put_((y.long(),), x), "b m, b", "b m"),
]

# Before torch 2.12, quantile does not run on fake tensors.
QUANTILES: list[Case] = [
    (lambda x: torch.quantile(x, 0.5, 0), "b m", "m"),
    (lambda x, q: torch.quantile(x, q, 1), "b m, n", "n b"),
]
QUANTILES = QUANTILES if torch.__version__ >= "2.12" else []

REDUCTIONS: list[Case] = [
    (torch.sum, "b m", ""),
    (lambda x: x.sum(0), "b m", "m"),
    (lambda x: torch.sum(x, dim=(0, 2)), "b y m", "y"),
    (lambda x: x.mean(-1, keepdim=True), "b m", "b _"),
    (lambda x: x.mean(dim=[2, 3]), "b c h w", "b c"),
    (lambda x: x.max(1), "b y m", "b m, b m"),
    (torch.max, "b m, m", "b m"),
    (lambda x: torch.amax(x, (1, 2)), "b y m", "b"),
    (lambda x: x.argmax(-1), "b m", "b"),
    (lambda x: x.std(0), "b m", "m"),
    (lambda x: torch.var_mean(x, 1), "b m", "b, b"),
    (lambda x: x.norm(dim=1), "b m", "b"),
    (lambda x: torch.linalg.norm(x, dim=0), "b m", "m"),
    (lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True), "b m", "b _"),
    (lambda x: x.logsumexp(1), "b m", "b"),
    (lambda x: x.median(0), "b m", "m, m"),
    (lambda x: torch.mode(x), "b m", "b, b"),
    (lambda x: x.kthvalue(1, 0), "b m", "m, m"),
    *QUANTILES,
    (lambda x: (x > 0).any(0), "b m", "m"),
    (lambda x: x.prod(1), "b m", "b"),
    (lambda x: x.trace(), "y y", ""),
    (lambda x, y: F.cross_entropy(x, y.argmax(1), reduction="none"), "b c h, b c h", "b h"),
    (lambda x, y: F.cross_entropy(x, y.argmax(1)), "b c, b c", ""),
]

CASES = {
    "elementwise": ELEMENTWISE,
    "dropout": DROPOUT,
    "linear": LINEAR,
    "attention": ATTENTION,
    "windows": WINDOWS,
    "normalising": NORMALISING,
    "joining": JOINING,
    "shapes": SHAPES,
    "moving": MOVING,
    "indexing": INDEXING,
    "reductions": REDUCTIONS,
}

EVERY = [
    pytest.param(
        *case,
        id=f"{family}-{place}-{case[1]}",
        marks=[pytest.mark.slow] * ((family, place) in (("linear", 28), ("attention", 8))),  # each takes seconds
    )
    for family, cases in CASES.items()
    for place, case in enumerate(cases)
]


def letters(axes: str) -> list[str]:
    return list(dict.fromkeys([char for char in axes if char.isalpha()]))


@pytest.mark.every(19)
@pytest.mark.parametrize("sizes", ["symbols", "equal"])
@pytest.mark.parametrize(("function", "axes", "expected"), EVERY)
def test_names_pass_through(function: Callable[..., Any], axes: str, expected: str, sizes: str) -> None:
    names = letters(axes)
    given = dict.fromkeys(names, 12) if sizes == "equal" else {}
    assert shown(trace(function, axes=axes, sizes=given).outputs) == expected


def test_a_reshape_that_mixes_axes_names_none_of_them() -> None:
    assert shown(trace(lambda x: x.reshape(x.shape[1], -1), axes="y x", sizes={"y": 4, "x": 6}).outputs) == "_ _"


UNKNOWN: list[tuple[Callable[..., Any], str, str]] = [
    (torch.linalg.inv, "y y", "linalg_inv"),
    (torch.fft.fft2, "b h w", "fft_fft2"),
    (torch.linalg.svd, "b y x", "linalg_svd"),
    (lambda x: torch.stft(x, 4, return_complex=True), "b 16", "stft"),
    (lambda x: torch.cumulative_trapezoid(x), "b y", "cumulative_trapezoid"),
    (torch.linalg.qr, "b y x", "linalg_qr"),
    (torch.matrix_exp, "y y", "matrix_exp"),
    (lambda x: torch.kron(x, x), "y x", "kron"),
    (lambda x: torch.as_strided(x, (2, 2), (1, 1)), "y x", "as_strided"),
]


@pytest.mark.smoke
@pytest.mark.parametrize(("function", "axes", "label"), UNKNOWN)
def test_an_operation_without_a_rule_shows_sizes(function: Callable[..., Any], axes: str, label: str) -> None:
    diagram = trace(function, axes=axes, sizes=dict.fromkeys(letters(axes), 4))
    last = diagram.boxes[-1]
    assert last.label.startswith(label)
    assert all(axis is None for value in last.outputs for axis in value.axes)
    assert all(value.sizes for value in last.outputs)


@torch.library.custom_op("circuits_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_a_custom_operation_is_a_box() -> None:
    class Op(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return grads[0] * 2

    for function, label in ((twice, "twice"), (torch.ops.circuits_tests.twice, "twice"), (lambda x: Op.apply(x), "Op")):
        (box,) = trace(lambda x, run=function: run(x), axes="b m", sizes={"b": 2, "m": 3}).boxes
        assert label in box.label
        assert box.outputs[0].sizes == (2, 3)


def test_a_rule_that_raises_leaves_axes_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise IndexError("an argument that the rule does not handle")

    monkeypatch.setitem(RULES, torch.relu, fail)
    assert shown(trace(torch.relu, axes="b m").outputs) == "_ _"


def test_notes_name_the_axis_at_dim() -> None:
    diagram = trace(lambda x: torch.cat([x.softmax(-1), x[:, :1]], 1).sum(0), axes="b m", sizes={"m": 3})
    assert [box.label for box in diagram.boxes] == ["softmax over m", "index [:, :1]", "cat over m+1", "sum over b"]


def test_parameters_of_a_normalisation_have_the_channel_axis() -> None:
    diagram = trace(nn.BatchNorm2d(12).eval(), axes="b c h w", sizes=dict.fromkeys("bchw", 12))
    learned = [value for value in diagram.boxes[-1].inputs if value.role in ("parameter", "buffer")]
    assert shown(tuple(learned)) == "c, c, c, c"


def test_an_axis_of_size_one_has_no_name_after_a_reshape_that_removes_another() -> None:
    sizes = {"b": 1, "y": 1, "m": 4}
    assert shown(trace(lambda x: x.reshape(1, 4), axes="b y m", sizes=sizes).outputs) == "_ m"
    assert shown(trace(lambda x: x.reshape(1, 1, 2, 2), axes="b y m", sizes=sizes).outputs) == "b y _ _"


def test_concatenated_axes_are_not_unified_though_their_sizes_agree() -> None:
    assert shown(trace(lambda x: torch.cat([x, weight(12, 5)]), axes="b 5", sizes={"b": 12}).outputs) == "b+12 _"
