"""The columns of a table, how they are chosen and sorted, how they give way, and what the formats have in common."""

import itertools
import json
import re
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, Diagram, trace, track
from tests.diagram.test_table import DIAGRAMS, body


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, (3, 5), stride=2, groups=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()) for _ in range(3)])
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.conv(x)), 2)
        return self.head(self.blocks(x).flatten(2).sum(-1))


X = torch.zeros(2, 3, 33, 33)


@pytest.fixture(scope="module")
def diagram() -> Diagram:
    return trace(Net(), X)


def cells(diagram: Diagram, column: str, **options: Any) -> dict[str, str]:
    """The text of one column by the first word of each row."""
    lines = diagram.to_markdown(columns=[column], **options).splitlines()
    rows = [
        [cell.strip() for cell in line.replace("\\", "").split("|")[1:-1]] for line in lines if line.startswith("| ")
    ]
    place = rows[0].index(column)
    return {row[0].replace("&nbsp;", "").split()[0]: row[place] for row in rows[2:]}


def test_arguments_are_those_that_are_not_the_default(diagram: Diagram) -> None:
    found = cells(diagram, "arguments", depth=None)
    assert found["conv"] == "kernel=(3, 5), stride=2"
    assert found["max_pool2d"] == "kernel=2"
    assert found["norm"] == "training=True"
    assert found["head"] == ""
    plain = diagram.to_dict()
    assert plain["boxes"][0]["arguments"] == {"kernel": [3, 5], "stride": 2}
    assert json.loads(json.dumps(plain)) == plain


def test_devices_and_places(diagram: Diagram) -> None:
    assert set(cells(diagram, "device").values()) == {"cpu"}
    assert diagram.to_dict()["inputs"][0]["device"] == "cpu"
    assert trace(Net().to("meta"), X.to("meta")).to_dict()["outputs"][0]["device"] == "meta"
    assert re.fullmatch(r"\S*test_table_columns.py:\d+", cells(diagram, "where", depth=None)["max_pool2d"])


def test_memory_is_that_of_tensors_and_not_of_views() -> None:
    def run(x: Tensor) -> Tensor:
        return (x.T.reshape(-1)[:2].exp() + x.reshape(-1)[:2]).relu_()

    for found in (trace(run, torch.ones(3, 1)), trace(run, axes="n 1", sizes={"n": 3})):
        assert (
            found.totals.activation_bytes == 2 * 2 * 4
        )  # exp and add: the other results are views of x, or of the sum
        assert cells(found, "memory", depth=None)["exp"] == "8 B"
    free = trace(lambda x: x.exp().double(), axes="n m", sizes={"m": 2})
    assert f"{free.totals.activation_bytes}" == "24*n"
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 4)).eval()
    with track(model, to=None) as seen:
        model(torch.ones(2, 3))
    assert seen.diagram.totals.activation_bytes == 2 * 4 * 4


def test_columns_of_data(diagram: Diagram) -> None:
    flops = {"heading": "flops", "": 100, "conv": 60, (3, 0): "?", "blocks.0": 5, "blocks.1": 6, "blocks.2": 7}
    found = diagram.to_markdown(columns=["parameters", flops], depth=None)
    column = [line.split("|")[3].strip() for line in found.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].replace("&nbsp;", "").strip() for line in found.splitlines() if line.startswith("| ")]
    shown = dict(zip(names, column, strict=True))
    assert shown["box"] == "flops"
    assert (shown["Net"], shown["conv Conv2d"], shown["norm BatchNorm2d"]) == ("100", "60", "")
    assert shown["0…2 Sequential"] == "?, 6, 7"  # the first by its place, the others by their paths
    only_paths = {key: value for key, value in flops.items() if key != (3, 0)}
    assert "| 18 |" in diagram.to_markdown(columns=[only_paths])  # 5 + 6 + 7
    assert diagram.table(columns=flops).splitlines()[0].split()[-3:] == ["parameters", "flops", "notes"]


def test_rows_are_sorted_by_a_column(diagram: Diagram) -> None:
    rows = body(diagram.table(sort="parameters"))
    assert [row.split()[0] for row in rows[:2]] == ["conv", "blocks.0…2.0"]
    assert not any(row.startswith(" ") for row in rows)
    costs = {"heading": "cost", "head": 3, "conv": 1, "norm": 2}
    assert [row.split()[0] for row in body(diagram.table(columns=[costs], sort="cost"))[:3]] == ["head", "norm", "conv"]
    with pytest.raises(CircuitError, match=r"memory depends on n, so rows cannot be sorted by it: give sizes"):
        trace(lambda x: x.exp(), axes="n").table(columns="memory", sort="memory")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["axis"]}, "a table has no column 'axis'; it has axes, sizes, parameters, dtype"),
        ({"columns": [3]}, "a column is a name, a mapping"),
        ({"sort": "memory"}, "sorted by 'memory', but its columns are axes, sizes, parameters, notes"),
        ({"depth": -1}, "depth is -1"),
        ({"depth": "deep"}, "depth is 'deep'"),
        ({"width": 0}, "width is 0"),
        ({"width": "wide"}, "width is 'wide'"),
    ],
)
def test_what_a_table_does_not_have_is_refused(diagram: Diagram, options: dict[str, Any], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        diagram.table(**options)


def test_the_counter_of_batch_norm_has_no_row(diagram: Diagram) -> None:
    net, lines = Net(), []
    with track(net, to=lines.append) as seen:
        net(X)
    for text in (diagram.table(depth=None), seen.diagram.table(depth=None), "\n".join(lines)):
        assert "norm BatchNorm2d" in text
        assert "add_" not in text
    assert any(box.label == "add_" for box in diagram.walk())


@pytest.mark.every(7)
@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_line_is_wider_than_asked_for(name: str) -> None:
    diagram = DIAGRAMS[name]()
    for width, plain in itertools.product((20, 40, 60, 80, 120), (False, True)):
        text = diagram.table(width=width, ascii=plain, columns="axes sizes parameters arguments dtype")
        assert max(map(len, body(text))) <= max(width, 48)
        if width >= 60:
            assert max(map(len, text.splitlines())) <= width
        assert text.isascii() or not plain


def test_what_is_cut_has_a_mark_and_what_is_left_out_is_named() -> None:
    diagram = DIAGRAMS["attention_sizes"]()
    wide, narrow = diagram.table(width=200), diagram.table(width=56)
    assert "not shown" not in wide
    assert diagram.table(width=None) == diagram.table(width=1000)
    assert "not shown    sizes, inputs (wider than 56 columns)" in narrow
    for before, after in zip(body(wide), body(narrow), strict=True):
        name = after[:30].rstrip()
        assert before.startswith(name) or "…" in name


def test_the_terminal_has_the_width(monkeypatch: pytest.MonkeyPatch, diagram: Diagram) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert str(diagram) == diagram.table(width=120)  # the standard output of a test is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert str(diagram) == diagram.table() == diagram.table(width=50) != diagram.table(width=120)


def test_all_formats_have_the_same_totals(diagram: Diagram) -> None:
    line = next(each for each in str(diagram).splitlines() if each.startswith("parameters "))
    number = line.split()[1]
    assert int(number.replace(",", "")) == diagram.totals.parameters == diagram.to_dict()["totals"]["parameters"]
    assert f"- parameters: {number} " in diagram.to_markdown()
    assert f"<b>parameters</b> {number} " in diagram._repr_html_()


@pytest.mark.slow
def test_the_legend_has_sizes_and_where_letters_are_bound() -> None:
    line = next(each for each in str(DIAGRAMS["attention_sizes"]()).splitlines() if each.startswith("axes "))
    assert line.split(maxsplit=1)[1] == "y=20, m=128 from target; x=22 from source; h=4, k=16 in rearrange"
    assert "y, x free" not in line
    free = next(each for each in str(DIAGRAMS["attention_symbols"]()).splitlines() if each.startswith("axes "))
    assert free.split(maxsplit=1)[1] == "m=128, y free from target; x free from source; h=4, k=16 in rearrange"


def test_runs_show_themselves() -> None:
    layer = nn.Linear(3, 2)
    with track(layer, to=None) as seen:
        assert repr(seen) == "Seen(0 runs)"
        assert "Seen(0 runs)" in seen._repr_html_()
        layer(torch.ones(1, 3))
        layer(torch.ones(1, 3))
    assert repr(seen) == "Seen(2 runs: Linear ×2)"
    assert seen._repr_html_() == seen[0]._repr_html_() + seen[1]._repr_html_()


def test_a_diagram_and_its_boxes_show_themselves_in_one_line(diagram: Diagram) -> None:
    assert repr(diagram) == f"Diagram('Net': 2 3 33 33 -> 2 10, {len([*diagram.walk()]) - 1} boxes inside)"
    assert repr(diagram.boxes[0]) == "Box('conv Conv2d': 2 3 33 33 -> 2 8 16 15, 1 box inside)"
    assert repr(diagram.boxes[0].boxes[0]) == "Box('conv2d': 2 3 33 33 -> 2 8 16 15)"
    many = trace(lambda *xs: torch.stack(xs), *[torch.ones(3) for _ in range(6)])
    assert repr(many.boxes[-1]) == "Box('stack': 3, 3, 3, 3, … 2 more -> 6 3)"
    assert repr(trace(lambda x: x.sum(), torch.ones(3))) == "Diagram('<lambda>': 3 -> (), 1 box inside)"
