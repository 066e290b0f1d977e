import cmath
import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from circuits import CircuitError, ShapeError, definitions, trace
from models.language_model import LanguageModel
from models.parts.positions import LearnedPositions, RotaryPositions, ScaledRotaryPositions, SinusoidalPositions

# --- Oracles: the papers' formulas, computed number by number ---------------------------------------------------------


def waves(positions: range, m: int) -> Tensor:
    """Vaswani et al., section 3.5."""
    rows = []
    for p in positions:
        angles = [p / 10000 ** (2 * (column // 2) / m) for column in range(m)]
        rows.append([math.sin(a) if column % 2 == 0 else math.cos(a) for column, a in enumerate(angles)])
    return torch.tensor(rows, dtype=torch.float64)


def rotated(vectors: Tensor, start: int, base: float) -> Tensor:
    """Su et al., section 3.2: entries i and i + k/2 as a complex number, times e^(i p base^(-2i/k))."""
    rows = []
    for p, vector in enumerate(vectors.tolist(), start=start):
        half = len(vector) // 2
        points = [
            complex(vector[i], vector[i + half]) * cmath.exp(1j * p * base ** (-2 * i / len(vector)))
            for i in range(half)
        ]
        rows.append([point.real for point in points] + [point.imag for point in points])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("m", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("start", [0, 1, 1000])
def test_sinusoidal_by_the_formula(m: int, start: int) -> None:
    input = torch.randn(2, 5, m, dtype=torch.float64)
    torch.testing.assert_close(SinusoidalPositions(m)(input, start), input + waves(range(start, start + 5), m))


@pytest.mark.parametrize("k", [2, 4, 10])
@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("start", [0, 1, 1000])
def test_rotary_by_the_formula(k: int, base: float, start: int) -> None:
    input = torch.randn(5, k, dtype=torch.float64)
    torch.testing.assert_close(RotaryPositions(k, base)(input, start), rotated(input, start, base))


def test_sinusoidal_adds_in_order_of_the_columns() -> None:
    """The last column has the longest wave length; with an odd m it is a sine."""
    added = SinusoidalPositions(3)(torch.zeros(2, 3, dtype=torch.float64))
    expected = [[0, 1, 0], [math.sin(1), math.cos(1), math.sin(10000 ** (-2 / 3))]]
    torch.testing.assert_close(added, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("start", [0, 3])
def test_learned_adds_its_rows(start: int) -> None:
    model, input = LearnedPositions(9, 4), torch.randn(2, 5, 4)
    answer = model(input, start)
    for row in range(5):
        torch.testing.assert_close(answer[:, row], input[:, row] + model.weight[start + row])
    answer.sum().backward()
    assert model.weight.grad is not None
    inside = (torch.arange(9) >= start) & (torch.arange(9) < start + 5)
    assert torch.equal(model.weight.grad, 2.0 * inside[:, None].expand(9, 4))


def test_learned_is_initialized_normal() -> None:
    weight = LearnedPositions(500, 100).weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(weight.mean().item()) < 1e-3


# --- Properties of rotary positions, and another library --------------------------------------------------------------


@pytest.mark.slow
@given(pairs=st.integers(1, 8), first=st.integers(0, 500), second=st.integers(0, 500), shift=st.integers(0, 500))
def test_a_score_depends_on_the_distance_alone(pairs: int, first: int, second: int, shift: int) -> None:
    turn = RotaryPositions(2 * pairs)
    query, key = torch.randn(2, 1, 2 * pairs, dtype=torch.float64)
    here = (turn(query, first) * turn(key, second)).sum()
    there = (turn(query, first + shift) * turn(key, second + shift)).sum()
    torch.testing.assert_close(here, there)


def test_rotation_keeps_norms_and_leaves_the_first_vector_as_it_is() -> None:
    input = torch.randn(2, 7, 6, dtype=torch.float64)
    answer = RotaryPositions(6)(input)
    torch.testing.assert_close(answer.norm(dim=-1), input.norm(dim=-1))
    assert torch.equal(answer[:, 0], input[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("start", [0, 77])
def test_rotary_is_llamas(base: float, start: int) -> None:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = LlamaConfig(hidden_size=64, num_attention_heads=4)
    config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    query, key = torch.randn(2, 2, 4, 9, 16)
    cosine, sine = LlamaRotaryEmbedding(config)(query, torch.arange(start, start + 9)[None])
    expected = apply_rotary_pos_emb(query, key, cosine, sine)
    ours = RotaryPositions(16, base)
    # Two computations of base^(-2i/k) in float32 differ in its last place, and so an angle of 86 by 1e-5.
    torch.testing.assert_close((ours(query, start), ours(key, start)), expected, rtol=0, atol=5e-5)


# --- All of them ------------------------------------------------------------------------------------------------------

ENCODINGS: dict[str, Callable[[], nn.Module]] = {
    "sinusoidal": partial(SinusoidalPositions, 6),
    "learned": partial(LearnedPositions, 400, 6),
    "rotary": partial(RotaryPositions, 6),
}
each = pytest.mark.parametrize("name", ENCODINGS)


@each
def test_a_sequence_may_come_in_pieces(name: str) -> None:
    model, input = ENCODINGS[name](), torch.randn(2, 9, 6)
    pieces = [model(input[:, :4]), model(input[:, 4:5], 4), model(input[:, 5:], start=5)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(input))


@each
def test_each_example_is_encoded_alike(name: str) -> None:
    model, many = ENCODINGS[name](), torch.randn(2, 3, 5, 6)
    expected = torch.stack([torch.stack([model(one) for one in some]) for some in many])
    torch.testing.assert_close(model(many), expected)
    torch.testing.assert_close(torch.vmap(torch.vmap(model))(many), expected)


@pytest.mark.parametrize("name", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("autocast", [False, True])
def test_angles_are_not_rounded_to_bfloat16(name: str, autocast: bool) -> None:
    """At positions where bfloat16 does not distinguish a hundred neighbours; only the result is rounded."""
    model, input = ENCODINGS[name](), torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        answer = model(input, 20_001)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.double(), model(input.double(), 20_001), rtol=2**-7, atol=2**-7)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        single = model(input.float(), 20_001)
    # An angle of 20,000 is precise to 0.001 in float32.
    torch.testing.assert_close(single.double(), model(input.double(), 20_001), rtol=0, atol=0.005)


@each
def test_gradients_are_right(name: str) -> None:
    model, input = ENCODINGS[name]().double(), torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: model(each, 2), [input])
    assert torch.autograd.gradgradcheck(lambda each: model(each, 2), [input])


@pytest.mark.every(3)
@each
def test_any_length_is_one_graph(name: str) -> None:
    torch.compiler.reset()
    model, counter = ENCODINGS[name](), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for x, start in ((5, 3), (7, 9), (300, 50)):
        input = torch.randn(2, x, 6)
        torch.testing.assert_close(compiled(input, start), model(input, start))
    assert counter.frame_count == 1


@pytest.mark.every(3)
@each
def test_it_compiles_with_its_gradients(name: str) -> None:
    torch.compiler.reset()
    model, input = ENCODINGS[name](), torch.randn(2, 5, 6, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    wanted = [input, *model.parameters()]
    ours = torch.autograd.grad(compiled(input, 2).square().sum(), wanted)
    torch.testing.assert_close(ours, torch.autograd.grad(model(input, 2).square().sum(), wanted))


@pytest.mark.every(3)
@each
def test_it_exports_for_any_length(name: str) -> None:
    model = ENCODINGS[name]()
    program = torch.export.export(model, (torch.randn(2, 5, 6),), dynamic_shapes=({1: torch.export.Dim.DYNAMIC},))
    input = torch.randn(2, 90, 6)
    torch.testing.assert_close(program.module()(input), model(input))


@each
def test_it_is_made_later_and_copied(name: str) -> None:
    model, input = ENCODINGS[name](), torch.randn(2, 5, 6)
    with torch.device("meta"):
        later = ENCODINGS[name]()
    assert later(torch.empty(2, 5, 6, device="meta")).device.type == "meta"
    later.to_empty(device="cpu").load_state_dict(model.state_dict())
    for other in (later, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(input), model(input), rtol=0, atol=0)


def test_names_of_the_state_are_a_promise() -> None:
    names = {name: list(make().state_dict()) for name, make in ENCODINGS.items()}
    assert names == {"sinusoidal": [], "learned": ["weight"], "rotary": []}
    assert sum(parameter.numel() for parameter in LearnedPositions(7, 5).parameters()) == 35


@pytest.mark.every(2)
@each
def test_its_table_names_its_axes(name: str) -> None:
    _, first, *rows = f"{trace(ENCODINGS[name]())}".partition("\n\n")[0].splitlines()
    assert "x 6 -> x 6" in first
    assert all("x" in row for row in rows[-2:])


# --- What cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RotaryPositions(7), "k may be 6 or 8, not 7"),
        (lambda: RotaryPositions(1), "k may be 2, not 1"),
        (lambda: RotaryPositions(0), "k may be 2, not 0"),
        (lambda: RotaryPositions(4, 0.0), "base is 0.0"),
        (lambda: SinusoidalPositions(0), "m is 0"),
        (lambda: LearnedPositions(0, 4), "x_max is 0"),
        (lambda: LearnedPositions(4, -1), "m is -1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(CircuitError, match=words):
        make()


@each
def test_what_does_not_fit_is_refused(name: str) -> None:
    model = ENCODINGS[name]()
    with pytest.raises(ShapeError, match=r"5 here, but 6"):
        model(torch.randn(3, 5))
    with pytest.raises(CircuitError, match="first vector's position, is -1"):
        model(torch.randn(3, 6), -1)


def test_learned_positions_end() -> None:
    model = LearnedPositions(9, 4)
    assert model(torch.randn(2, 4), start=7).shape == (2, 4)
    with pytest.raises(CircuitError, match="2 vectors from position 8 on, 9 learned"):
        model(torch.randn(2, 4), start=8)
    with pytest.raises(CircuitError, match="10 vectors from position 0 on, 9 learned"):
        model(torch.randn(10, 4))


# --- Cosines and sines of the last call -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [RotaryPositions, ScaledRotaryPositions])
def test_kept_waves_are_those_of_the_call(make: Any) -> None:
    """Every call equals the definition, whatever the last one was: other positions, dtypes, settings, modes."""
    rotary, vectors = make(8, 50.0), torch.randn(2, 5, 8)
    for change in ("", "start", "", "longer", "double", "inference", "gradient", "base", "copy", "pickle"):
        given, start = vectors[:, :4] if change != "longer" else vectors, 3 if change == "start" else 0
        given = given.double() if change == "double" else given.clone().requires_grad_(change == "gradient")
        if change == "base":
            rotary.base = 7.0
        if change in ("copy", "pickle"):
            rotary = copy.deepcopy(rotary) if change == "copy" else pickle.loads(pickle.dumps(rotary))
            assert rotary.waves.last is None
        with torch.inference_mode(change == "inference"):
            found = rotary(given, start)
        with definitions():
            torch.testing.assert_close(found, rotary(given.detach(), start), rtol=0, atol=0)
        if change == "gradient":
            found.square().sum().backward()
            assert given.grad is not None


@pytest.mark.slow
def test_waves_are_computed_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a decoding step, although each of three layers rotates its queries and its keys."""
    model, computed = LanguageModel(11, m=8, k=4, h=2, f=8, depth=3), []
    original: Any = RotaryPositions.frequencies
    monkeypatch.setattr(RotaryPositions, "frequencies", lambda self, like: computed.append(1) or original(self, like))
    model.generate(torch.tensor([1, 2, 3]), 5)
    assert len(computed) == 5
