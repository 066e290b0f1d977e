# To pyright a submodule or a buffer is a Tensor or a Module.
# pyright: reportArgumentType=false, reportOperatorIssue=false
"""Modules of many kinds: their diagrams list the parts and compute the same results; recording does not change them."""

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from einops.layers.torch import EinMix, Rearrange, Reduce
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from circuits import trace, track

linear = nn.Linear


class Pair(NamedTuple):
    first: Tensor
    others: Any


@dataclasses.dataclass
class State:
    value: Tensor
    notes: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: Tensor
    count: int = 3


class Blocks(nn.Module):
    """A shared layer, a list, a dict, and a layer called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = self.a
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.kinds = nn.ModuleDict({"relu": nn.ReLU()})
        self.again = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        for block in self.blocks:
            x = self.kinds["relu"](block(x)) + x
        for _ in range(3):
            x = self.again(x)
        return x


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.read = nn.Linear(8, 10, bias=False)
        self.read.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(self.embed(tokens))


class Structured(nn.Module):
    def forward(self, pair: Pair, state: State | None = None, *rest: Tensor, scale: float = 2.0, **named: Any) -> Any:
        assert state is not None
        total = pair.first * scale + pair.others["x"][0] + state.value + sum(rest)
        return Pair(total, [State(named["mask"] + 1, {"deep": (total, None)})]), Frozen(total - 1)


class Mappings(nn.Module):
    def forward(self, x: Tensor) -> Any:
        ordered = collections.OrderedDict(a=x + 1, b=x * 2)
        point = collections.namedtuple("Point", "u v")
        return ordered, point(x, x - 1), collections.defaultdict(list, {"k": x * 3})


class Plain(nn.Module):
    """Tensors in an attribute, in a list, and in a buffer that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.randn(8)
        self.shifts = [torch.randn(8)]
        self.register_buffer("seen", torch.randn(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shifts[0] + self.seen


class OverridesCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class BypassesModuleCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = OverridesCall()

    def __call__(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


class Recursive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor, times: int = 3) -> Tensor:
        return x if times == 0 else self(self.inner(x).relu(), times - 1)


def normalised() -> nn.Module:
    spectral = parametrizations.spectral_norm(nn.Linear(8, 8))
    return nn.Sequential(spectral, parametrizations.weight_norm(nn.Linear(8, 8)), nn.utils.spectral_norm(linear(8, 8)))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    model.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return model


def image_layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", padding_mode="circular"),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.5),
        nn.ConvTranspose2d(8, 8, 2, 2),
        nn.GroupNorm(2, 8),
        nn.AvgPool2d(2),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.PixelShuffle(2),
        nn.Flatten(),
        nn.LayerNorm(48),
    )


def einops_layers() -> nn.Module:
    return nn.Sequential(
        Rearrange("b c (h p) (w q) -> b (h w) (c p q)", p=4, q=4),
        EinMix("b n c -> b n d", weight_shape="c d", bias_shape="d", c=48, d=10),
        Reduce("b n d -> b d", "mean"),
    )


def normalisations() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), nn.GroupNorm(2, 8), nn.InstanceNorm1d(8, track_running_stats=True))


X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TOKENS = torch.tensor([[1, 2, 3], [4, 5, 9]])
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "blocks": (Blocks, (X,)),
    "tied": (Tied, (TOKENS,)),
    "mappings": (Mappings, (X,)),
    "plain attributes": (Plain, (X,)),
    "overrides __call__": (OverridesCall, (X,)),
    "bypasses Module.__call__ inside": (lambda: nn.Sequential(BypassesModuleCall(), nn.ReLU()), (X,)),
    "bypasses Module.__call__": (BypassesModuleCall, (X,)),
    "recursive": (Recursive, (X,)),
    "normalised weights": (normalised, (X,)),
    "hooks": (hooked, (X,)),
    "images": (image_layers, (IMAGES,)),
    "einops": (einops_layers, (IMAGES,)),
    "normalisations": (normalisations, (torch.randn(4, 8, 5),)),
    "attention": (lambda: nn.MultiheadAttention(16, 4, dropout=0.3, batch_first=True), (SEQUENCE,) * 3),
    "lstm": (lambda: nn.LSTM(16, 6, 2, dropout=0.2, bidirectional=True), (SEQUENCE,)),
    "lstm with a state": (lambda: nn.LSTM(16, 6), (SEQUENCE, (torch.randn(1, 5, 6), torch.randn(1, 5, 6)))),
    "gru": (lambda: nn.GRU(16, 6, batch_first=True), (SEQUENCE,)),
    "lstm cell": (lambda: nn.LSTMCell(8, 6), (X,)),
    "transformer": (lambda: nn.Transformer(16, 4, 1, 1, 32, batch_first=True), (SEQUENCE, SEQUENCE)),
    "embedding bag": (lambda: nn.EmbeddingBag(10, 4), (TOKENS,)),
    "compiled": (lambda: torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), backend="eager"), (X,)),
    "compiled inside": (lambda: nn.Sequential(torch.compile(nn.Linear(8, 8), backend="eager"), nn.ReLU()), (X,)),
}


@pytest.mark.every(13)
@pytest.mark.parametrize("name", CASES)
def test_a_diagram_computes_the_results_of_the_module(agree: Any, name: str) -> None:
    make, args = CASES[name]
    agree(make(), *args)


def test_a_module_compiled_in_place(agree: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    model.compile(backend="eager")
    model[0].compile(backend="eager")
    assert labels(agree(model, X)) == ["Sequential", "Linear", "linear", "ReLU", "relu"]


def test_keywords_and_nested_values(agree: Any) -> None:
    pair, state = Pair(torch.randn(4, 8), {"x": [torch.randn(4, 8), 3]}), State(torch.randn(4, 8), "a note")
    diagram = agree(Structured(), pair, state, torch.randn(8), torch.randn(1), scale=0.5, mask=torch.randn(2))
    names = ["pair.first", "pair.others.x.0", "state.value", "rest.0", "rest.1", "mask"]
    assert [value.name for value in diagram.inputs] == names
    output = diagram(pair, state, torch.randn(8), torch.randn(1), scale=0.5, mask=torch.randn(2))
    assert [type(part) for part in output] == [Pair, Frozen]
    assert output[1].count == 3


def labels(diagram: Any) -> list[str]:
    return [box.label for box in diagram.walk()]


def test_a_shared_module_has_both_names_and_its_parameters_count_once(agree: Any) -> None:
    model = Blocks()
    diagram = agree(model, X)
    called = [(box.name, box.path) for box in diagram.walk() if box.kind == "module"]
    blocks = [
        entry for place in range(3) for entry in ((f"blocks.{place}", f"blocks.{place}"), ("kinds.relu", "kinds.relu"))
    ]
    assert called == [("", ""), *[("a=b", "a")] * 2, *blocks, *[("again", "again")] * 3]
    assert diagram.box.parameter_count == sum(each.numel() for each in model.parameters())
    assert {value.name for value in diagram.parameters} == {name for name, _ in model.named_parameters()}


def test_tied_parameters_count_once(agree: Any) -> None:
    diagram = agree(Tied(), TOKENS)
    assert diagram.box.parameter_count == 80
    weights = [value.number for box in diagram.walk() for value in box.inputs if value.role == "parameter"]
    assert len(weights) == 2
    assert len(set(weights)) == 1


def test_every_module_that_ran_is_in_the_diagram(agree: Any) -> None:
    model = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)
    ran: list[nn.Module] = []
    handles = [each.register_forward_hook(lambda module, *_: ran.append(module)) for each in model.modules()]
    model(SEQUENCE, SEQUENCE)
    for handle in handles:
        handle.remove()
    diagram = agree(model, SEQUENCE, SEQUENCE)
    paths = [box.path for box in diagram.walk() if box.kind == "module"]
    assert sorted(paths) == sorted({id(each): name for name, each in model.named_modules()}[id(each)] for each in ran)


def test_multihead_attention_is_traced_into(agree: Any) -> None:
    diagram = agree(nn.MultiheadAttention(16, 4, batch_first=True), *(SEQUENCE,) * 3)
    assert {"softmax", "baddbmm", "bmm", "linear"} & {label.split()[0] for label in labels(diagram)} >= {
        "linear",
        "bmm",
    }
    assert any(label.startswith("softmax") for label in labels(diagram))


def test_batch_norm_statistics_are_updated_by_runs_only(agree: Any) -> None:
    """A trace counts no batch, and a run of the diagram counts one; `agree` compares the other running statistics."""
    model = nn.Sequential(nn.BatchNorm1d(8))
    diagram = agree(model, X)
    before = int(model[0].num_batches_tracked)
    diagram(X)
    assert int(model[0].num_batches_tracked) == before + 1


def test_on_the_meta_device(agree: Any) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    diagram = agree.record(model, torch.empty(3, 8, device="meta"))
    assert diagram.outputs[0].sizes == (3, 8)
    assert diagram(torch.empty(3, 8, device="meta")).device.type == "meta"
    assert [str(size) for size in trace(model, axes="b 8").outputs[0].sizes] == ["b", "8"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_trace_and_track_under_autocast(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1)).to(dtype)
    x = X.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        plain = model(x)
        traced = trace(model, x)
        with track(model, to=None) as seen:
            model(x)
    with torch.no_grad():
        assert torch.equal(traced(x), plain)
        assert torch.equal(seen.diagram(x), plain)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(traced(x), plain)
