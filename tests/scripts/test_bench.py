"""The benchmarks run, and the variants they compare compute the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from circuits import MACHINES, Machine, trace
from models.attention import MultiHeadAttention
from models.mlp import MLP
from scripts.bench import app
from scripts.benches import broadcasting, drawing, imports, machine, roofline
from scripts.benches.checks import Case, cases
from scripts.benches.memory import peak
from scripts.benches.pairs import PAIRS
from scripts.benches.timing import Spread, interleaved


@pytest.mark.slow
def test_the_checks_are_measured() -> None:
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["checks", "--blocks", "2", "--calls", "10"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in (
        "by hand",
        "circuit",
        "attention: what a check adds",
        "linear: what a check adds",
        "under torch.compile",
    ):
        assert words in ran.output


def test_imports_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With modules of Python in place of the statements, since torch takes seconds."""
    monkeypatch.setattr(imports, "VARIANTS", {"nothing": "pass", "import decimal": "import decimal"})
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["import", "--processes", "2"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("2 new processes each", "nothing", "import decimal", "1.00×"):
        assert words in ran.output


@pytest.mark.slow
def test_tracking_is_measured() -> None:
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["tracking", "--blocks", "2"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("batch 1", "batch 8", "track, printing nothing", "torchinfo.summary"):
        assert words in ran.output


@pytest.mark.slow
def test_drawing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(drawing, "subjects", lambda: {"MLP": drawing.Subject(MLP(2, 2, 4, 3))})
    monkeypatch.setattr(drawing, "EQUAL", (2, 3))
    ran = CliRunner().invoke(app, ["drawing", "--blocks", "2", "--largest", "300"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("times the trace", "MLP", "nested blocks", "slopes of the logarithms", "3 equal layers"):
        assert words in ran.output


@pytest.mark.every(3)
@pytest.mark.parametrize("kind", drawing.KINDS)
def test_as_many_boxes_are_drawn_as_the_model_has(kind: str) -> None:
    """With all boxes open, none is left out and none is folded into a bracket."""
    diagram = trace(drawing.KINDS[kind](100), axes="b m")
    pending, count = [diagram.box], 0
    while pending:
        pending += pending.pop().boxes
        count += 1
    assert drawing.boxes_shown(drawing.drawn(diagram, depth=100)) == count >= 100


def test_a_word_without_squares_has_none() -> None:
    word = drawing.square_free(500)
    assert {*word} == {0, 1, 2}
    for length in range(1, 250):
        assert not any(word[at : at + length] == word[at + length : at + 2 * length] for at in range(500 - 2 * length))


@pytest.mark.slow
def test_broadcasting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(broadcasting, "SIZES", ((2, 5, 4, 3),))
    ran = CliRunner().invoke(app, ["broadcast", "--seconds", "0"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("b=2 and h=3", "fused by hand", "torch.vmap, nested", "einx"):
        assert words in ran.output


def test_ways_that_differ_are_not_timed() -> None:
    tensors = torch.randn(3, 2, 5, 4, 3)
    broadcasting.agree(broadcasting.ways(), *tensors)
    with pytest.raises(AssertionError, match="unscaled"):
        broadcasting.agree(
            {"unscaled": lambda query, key, value: broadcasting.by_fused(2 * query, key, value)}, *tensors
        )


@pytest.mark.slow
def test_models_are_measured(tmp_path: Path) -> None:
    """Beside the other implementation, and beside the lower bounds of a machine from a file: here, of an H100."""
    threads = torch.get_num_threads()
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(MACHINES["H100 SXM"].to_dict()))
    ran = CliRunner().invoke(app, ["models", "mlp", "--seconds", "0", "--machine", f"{path}"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("nn.Sequential", "float32", "bfloat16", "forward", "and backward", "times fused", "85.59 M"):
        assert words in ran.output
    assert "H100 SXM, at most: float32 67 TFLOP/s (ridge at 20 FLOPs/byte), memory 3.35 TB/s" in ran.output
    assert CliRunner().invoke(app, ["models", "cat"]).exit_code == 2


@pytest.mark.slow
def test_backward_circuits_are_measured() -> None:
    """Their gradients are compared with autograd's before they are timed."""
    threads = torch.get_num_threads()
    ran = CliRunner().invoke(app, ["backward", "mlp", "--seconds", "0", "--ways", "plain"])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    for words in ("mlp", "autograd", "backward", "forward and reverse", "plain"):
        assert words in ran.output
    assert CliRunner().invoke(app, ["backward", "cat"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_what_is_timed_is_the_same_model(name: str) -> None:
    """The benchmark compares outputs before it times them; this test compares the sums of all parameter gradients."""
    try:
        pair = PAIRS[name]()
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    sums = []
    for model, call in ((pair.ours, pair.call_ours), (pair.theirs, pair.call_theirs)):
        model.double().eval()
        inputs = [each.double() if each.is_floating_point() else each for each in pair.inputs]
        output = call(model, *inputs)
        if pair.generated:
            sums.append(output)
            continue
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
        sums.append(sum(each.grad.square().sum() for each in model.parameters() if each.grad is not None))
    torch.testing.assert_close(sums[0], sums[1])


@pytest.mark.slow
def test_the_peak_of_memory_is_what_a_call_takes() -> None:
    """A call that allocates and frees 100 MiB is measured with an error of at most a tenth."""
    taken = peak(lambda: torch.ones(25 * 2**20).sum(), torch.device("cpu"))
    assert taken is None or 90 * 2**20 < taken < 110 * 2**20


@pytest.mark.parametrize("case", cases()[0], ids=lambda case: case.title)
def test_every_variant_checks(case: Case) -> None:
    """All variants return the bare result for arguments that fit; all but the bare one refuse arguments that do not."""
    first, *others = case.arguments
    for name, function in case.variants.items():
        assert function(first, *others) is first
        if name != "bare":
            assert refuses(function, first[..., :-1], *others), name


def refuses(function: Callable[..., object], *arguments: object) -> bool:
    """Every checker raises its own error."""
    try:
        function(*arguments)
    except Exception:
        return True
    return False


def test_turns_are_fair() -> None:
    order: list[str] = []
    times = interleaved({name: (lambda name=name: order.append(name)) for name in "abc"}, blocks=3, calls=1)
    assert order == list("abc" + "bca" + "cab")
    assert [len(each) for each in times.values()] == [3, 3, 3]
    assert Spread.of([3.0, 1.0, 2.0]).middle == 2.0


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All rates are positive numbers with quartiles and a source, and are written as what `Machine` reads."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(machine, "largest_cache", lambda: 2**18)
    monkeypatch.setattr(machine, "_REPEATED", 2)
    path = tmp_path / "machine.json"
    ran = CliRunner().invoke(app, ["machine", "--size", "64", "--blocks", "2", "-o", str(path)])
    torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    found = Machine.from_dict(json.loads(path.read_text()))
    assert str(found) in ran.output
    assert found.cache_rate is not None
    for rate in (*found.flops.values(), found.memory_rate, found.cache_rate):
        assert rate.low is not None
        assert rate.high is not None
        assert 0 < rate.low <= rate.value <= rate.high <= rate.peak
        assert "measured" in rate.source


def test_the_rates_are_amounts_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With runs of half a second each: 2 size³ FLOPs, and the bytes of the three tensors of a triad."""
    monkeypatch.setattr(machine, "largest_cache", lambda: 3 * 2**18)
    monkeypatch.setattr(machine, "interleaved", lambda run, blocks, calls: dict.fromkeys(run, [0.5] * blocks))
    found = machine.measure(8, 2, torch.device("cpu"))
    assert {rate.value for rate in found.flops.values()} == {2 * 8**3 / 0.5}
    assert found.memory_rate.value == 4 * 3 * 2**18 / 0.5
    assert found.cache is not None
    assert found.cache.value == 3 * 2**18
    assert found.cache_rate is not None
    assert found.cache_rate.value == pytest.approx(200 * 2**20 / 0.5, rel=1e-5)


def test_the_fastest_product_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 rows in half a second, or 16 rows (a 64th of the FLOPs) in a thousandth."""
    monkeypatch.setattr(machine, "largest_cache", lambda: 3 * 2**18)
    seconds = {"float32": [0.5, 0.6, 0.7], "float32 16": [0.001, 0.002, 0.003]}
    monkeypatch.setattr(
        machine, "interleaved", lambda run, blocks, calls: {name: seconds.get(name, [1.0] * 3) for name in run}
    )
    rate = machine.measure(64, 3, torch.device("cpu")).flops[torch.float32]
    assert rate.value == 2 * 64**3 / 0.6
    assert rate.peak == 2 * 16**3 / 0.001


def test_the_bound_is_that_of_what_ran() -> None:
    """The zoo's attention runs its fused kernel, which moves no scores and leaves out what a causal mask hides."""
    b, x, m = 2, 7, 16
    layer, given = MultiHeadAttention(m=m, k=4, h=2), torch.randn(b, x, m)
    total = roofline.bound_of(lambda model, x: model(x, x, causal=True), layer, (given,), MACHINES["H100 SXM"]).total
    assert total.flops == 4 * 2 * b * x * m * 8 + 4 * 8 * b * x * (x + 1) // 2
    assert total.crossing == 4 * (2 * b * x * m + 4 * m * 8)
    call = lambda model, x: model(x, x)  # noqa: E731
    cells = roofline.cells(roofline.bound_of(call, layer, (given,), MACHINES["H100 SXM"]), [1e-6, 3e-6, 2e-6])
    assert (cells[5], cells[7]) == ("2 µs", "1 µs")
