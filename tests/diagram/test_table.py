"""Tables of diagrams: golden files, and properties of each format: text, Markdown, HTML, plain data."""

import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import Diagram, circuit, einsum, rearrange, trace, track
from circuits.diagram import box_line
from models.mlp import MLP

Golden = Callable[[str, str], None]


@circuit("... y k, ... x k, ... x k -> ... y k")
def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x") * key.shape[-1] ** -0.5
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


class MultiHeadAttention(nn.Module):
    def __init__(self, m: int, k: int, h: int) -> None:
        super().__init__()
        self.m, self.k, self.h = m, k, h
        self.Lq, self.Lk, self.Lv = [nn.Linear(m, k * h, bias=False) for _ in range(3)]
        self.Lo = nn.Linear(k * h, m, bias=False)

    @circuit("... y m, ... x m -> ... y m", fixed="m")
    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        query, key, value = [
            rearrange(layer(x), "... y (h k) -> ... h y k", k=self.k)
            for layer, x in ((self.Lq, target), (self.Lk, source), (self.Lv, source))
        ]
        return self.Lo(rearrange(attention(query, key, value), "... h y k -> ... y (h k)"))


class Residual(nn.Module):
    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(c, k, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.short(x))


def resnet() -> nn.Module:
    blocks = [Residual(8, 8, 1), Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 16, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *end).eval()


class UNet(nn.Module):
    def __init__(self, c: int, depth: int) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(1, c, 3, padding=1), nn.Conv2d(c, 2, 1)
        self.down = nn.ModuleList([nn.Conv2d(c << i, c << i + 1, 3, padding=1) for i in range(depth)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(c << i + 1, c << i, 2, 2) for i in range(depth)])
        self.merge = nn.ModuleList([nn.Conv2d(c << i + 1, c << i, 3, padding=1) for i in range(depth)])

    @circuit("b 1 h w -> b 2 h w", multiples={"h": 4, "w": 4})
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.into(x))
        skips = []
        for down in self.down:
            skips.append(x)
            x = F.relu(down(F.max_pool2d(x, 2)))
        for i, skip in reversed(list(enumerate(skips))):
            x = F.relu(self.merge[i](torch.cat([skip, self.up[i](x)], 1)))
        return self.out(x)


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda row: self.linear(row).softmax(-1), in_dims=1, out_dims=1)(x)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.again = self.embed
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(12)])
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.embed(x))
        for block in self.blocks:
            x = block(x) + x
        for _ in range(3):
            x = self.last(x)
        return self.embed(x)


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.net = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))

    @circuit("b y -> b y k", dtypes={"tokens": torch.long})
    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.net(self.embed(tokens))
        return torch.where(x > 0, x, 0.0).double()


def tracked(model: nn.Module, *args: Any) -> tuple[str, Diagram]:
    """Return the text that `track` prints during a run and the diagram of the run, which may fail."""
    written = io.StringIO()
    seen: Any = None
    try:
        with track(model, to=written) as seen:
            model(*args)
    except RuntimeError:
        pass
    return written.getvalue(), seen.diagram


DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "attention_sizes": lambda: trace(MultiHeadAttention(m=128, k=16, h=4), sizes={"y": 20, "x": 22}),
    "attention_symbols": lambda: trace(MultiHeadAttention(m=128, k=16, h=4)),
    "mlp": lambda: trace(MLP().probabilities),
    "transformer_layer": lambda: trace(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), axes="b y 16"),
    "resnet": lambda: trace(resnet(), axes="b 3 2*h 2*w"),
    "unet": lambda: trace(UNet(8, 2)),
    "lstm": lambda: trace(nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), axes="b y 8"),
    "vmap": lambda: trace(Mapped(), axes="b n 8"),
    "failing": lambda: tracked(Broken(), torch.rand(2, 8))[1],
    "shared": lambda: trace(Shared(), axes="b 8"),
    "autocast": lambda: trace(Autocast()),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", DIAGRAMS)
def test_tables(name: str, golden: Golden) -> None:
    if name == "transformer_layer" and torch.__version__ < "2.13":
        pytest.skip("torch's own attention is written with other calls before 2.13")
    golden(f"diagram/{name}.txt", f"{DIAGRAMS[name]()}\n")


def test_a_tracked_run_is_printed_line_by_line(golden: Golden) -> None:
    golden("diagram/failing_as_it_runs.txt", tracked(Broken(), torch.rand(2, 8))[0])


def body(table: str) -> list[str]:
    """Return the rows of a table, without headings and the lines under it."""
    return table.partition("\n\n")[0].splitlines()[1:]


@pytest.mark.slow
def test_depth_limits_the_levels_that_are_shown() -> None:
    diagram = DIAGRAMS["transformer_layer"]()
    assert len(body(diagram.table(depth=0))) == 1
    levels = [(len(line) - len(line.lstrip())) // 2 for line in body(diagram.table(depth=1))]
    assert set(levels) == {0, 1}
    assert f"{len(body(diagram.table())) - len(levels)} more rows" in diagram.table(depth=1)
    assert diagram.table(depth=99) == diagram.table() == diagram.table(depth=None) == str(diagram)


def test_columns_are_aligned() -> None:
    lines = str(DIAGRAMS["attention_sizes"]()).splitlines()
    assert len({line.index("8,192") for line in lines if "8,192" in line}) == 1
    assert len({line.index(" y m -> y (h k)") for line in lines if " y m -> y (h k)" in line}) == 1


def test_parameters_are_counted_once() -> None:
    model = Shared()
    diagram = trace(model, axes="b 8")
    total = sum(parameter.numel() for parameter in model.parameters())
    assert diagram.box.parameter_count == diagram.totals.parameters == total
    lines = body(str(diagram))
    assert f" {total:,}" in lines[0]
    assert lines[-1].split() == ["embed=again", "Linear", "b", "8", "->", "b", "8", "counted", "above"]


class PartlyRead(nn.Module):
    """A module with a parameter and a layer that no call reads, and a layer of which it reads one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.partly, self.unused = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(3, 3)
        self.token = nn.Parameter(torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) @ self.partly.weight.mT


def test_parameters_that_nothing_reads_are_listed() -> None:
    model, x = PartlyRead(), torch.rand(2, 4)
    with track(model, to=None) as seen:
        model(x)
    for diagram in (trace(model, x), seen.diagram):
        (row,) = [line for line in str(diagram).splitlines() if "no box reads" in line]
        assert row.endswith("21  token, partly.bias, … 2 more")
        assert "21 unused by this run" in str(diagram)
        assert "that no box reads" in diagram.to_markdown()
        assert diagram.to_dict()["unused"] == ["token", "partly.bias", "unused.weight", "unused.bias"]
    assert "no box reads" not in str(trace(model.used, x))


def test_parameters_that_are_frozen_are_counted() -> None:
    model, x = PartlyRead(), torch.rand(2, 4)
    diagram = trace(model, x)
    assert "frozen" not in str(diagram)
    model.used.requires_grad_(False)
    model.unused.weight.requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    for each in (diagram, trace(model, x)):
        assert (each.totals.trained, each.totals.frozen) == (count - 29, 29)
        assert f"{count - 29} trained, 29 frozen, 21 unused by this run" in str(each)
        assert "20  frozen" in next(line for line in body(str(each)) if line.startswith("  used Linear"))
        (weight, *_) = [
            value for value in each.to_dict()["boxes"][0]["boxes"][0]["inputs"] if value["name"] == "used.weight"
        ]
        assert not weight["requires_grad"]


def head_of(embedding: nn.Embedding, bias: bool) -> nn.Linear:
    head = nn.Linear(8, 50, bias=bias)
    head.weight = embedding.weight
    return head


def parameter_column(model: nn.Module, x: Tensor) -> list[str]:
    """Return the parameters and notes of the rows below the first, dtypes left out."""
    rows = [line.split("|") for line in trace(model, x).to_markdown(columns="parameters dtype notes").splitlines()]
    return [f"{row[2].strip()} {row[4].strip()}".strip() for row in rows if len(row) > 4][3:]


def test_tied_parameters_are_shared() -> None:
    embed, tokens = nn.Embedding(50, 8), torch.zeros(2, 3, dtype=torch.long)
    tied = nn.Sequential(embed, head_of(embed, bias=False))
    assert parameter_column(tied, tokens) == ["400", "tied to 0.weight"]
    partly = nn.Sequential(embed, head_of(embed, bias=True))
    assert parameter_column(partly, tokens) == ["400", "50 tied to 0.weight"]
    nested = nn.Sequential(nn.Sequential(embed, nn.ReLU()), nn.Sequential(head_of(embed, bias=False), nn.ReLU()))
    assert parameter_column(nested, tokens) == ["400", "400", "", "", "tied to 0.0.weight", ""]
    assert "tied to 0.0.weight" in trace(nested, tokens).table(depth=1)


def test_repeated_boxes_that_share_parameters_count_them_once() -> None:
    activation = nn.PReLU()
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), activation) for _ in range(3)])
    assert parameter_column(blocks, torch.rand(1, 4)) == ["61 ×3", "3 × 20", "1"]
    apart = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.PReLU()) for _ in range(3)])
    assert parameter_column(apart, torch.rand(1, 4)) == ["3 × 21 ×3", "3 × 20", "3 × 1"]


@pytest.mark.every(7)
@pytest.mark.parametrize("name", DIAGRAMS)
def test_plain_data_survives_json(name: str) -> None:
    plain = DIAGRAMS[name]().to_dict()
    assert json.loads(json.dumps(plain)) == plain


def test_plain_data_has_every_box() -> None:
    diagram = DIAGRAMS["attention_symbols"]()

    def count(found: dict[str, Any]) -> int:
        return 1 + sum(count(inner) for inner in found["boxes"])

    plain = diagram.to_dict()
    assert count(plain) == len(list(diagram.walk()))
    assert plain["signature"] == "... y m, ... x m -> ... y m"
    assert plain["outputs"][0]["axes"] == ["y", "m"]
    assert plain["outputs"][0]["sizes"] == ["y", 128]
    assert plain["parameters"] == 4 * 128 * 64


def awkward(x: Tensor) -> Tensor:
    return rearrange(torch.cat([x, x], 1), "b_0 (two c) -> two b_0 c", two=2)


def test_markdown_and_html_escape_special_characters() -> None:
    run = lambda x: awkward(x)  # noqa: E731
    diagram = trace(run, axes="b_0 c")
    assert body(str(diagram))[0].startswith("<lambda>")
    markdown, html = diagram.to_markdown(), diagram._repr_html_()
    assert all(word in markdown for word in ("&lt;lambda&gt;", "2\\*c", "b\\_0"))
    assert "<lambda>" not in markdown + html
    assert all(word in html for word in ("&lt;lambda&gt;", "-&gt;"))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert len(rows) == len(body(str(diagram))) + 2


def test_fixed_sizes_come_last() -> None:
    diagram = trace(lambda x: x * range(x.shape[1])[-1], axes="b m", sizes={"b": 2})
    (note,) = diagram.fixed
    assert str(note).startswith("m = ")
    assert str(diagram).splitlines()[-1] == str(note)
    assert diagram.to_dict()["fixed"] == [str(note)]


def test_the_line_of_a_running_box_shows_only_its_inputs() -> None:
    box = DIAGRAMS["attention_sizes"]().box
    assert " 20 128, 22 128 " in box_line(box, 0, True, 120)
    assert " 20 128, 22 128 -> 20 128 " in box_line(box, 0, False, 120)


def test_a_repeated_group_of_boxes_is_shown_once() -> None:
    lines = body(str(trace(nn.Sequential(*[nn.Linear(4, 4), nn.ReLU()] * 5), axes="b 4", sizes={"b": 2})))
    assert len(lines) == 3
    assert lines[1].endswith("×5 ┐")
    assert lines[2].endswith("┘")


@pytest.mark.slow
def test_many_boxes_are_printed_quickly() -> None:
    layers = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)) for _ in range(200)]
    diagram = trace(nn.Sequential(*layers), axes="b 4", sizes={"b": 2})
    start = time.perf_counter()
    assert "0…199 Sequential" in str(diagram)
    assert time.perf_counter() - start < 2.0


def test_a_module_of_one_operation_has_its_note() -> None:
    """What a reader has to know of the operation is not lost with its row."""
    diagram = trace(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.ones(2, 3))
    first, second = diagram.box.boxes
    noted = replace(first, boxes=(replace(first.boxes[0], note="reads 7"),))
    table = replace(diagram, box=replace(diagram.box, boxes=(noted, second))).table()
    assert [line.endswith("reads 7") for line in table.splitlines()[1:4]] == [False, True, False]
