"""Tests that every model must pass: a new model is a line in MODELS. Tests of one model are in its own file."""

import copy
import io
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchinfo
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
from circuits import Circuit, definitions, find_circuit, trace
from models.gated_feed_forward import GatedFeedForward
from models.parts.positions import RotaryPositions, ScaledRotaryPositions
from models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Entry:
    """A small model, and the sizes of its free axes in tests that compute numbers; `...` is 4 examples."""

    make: Callable[..., nn.Module]
    sizes: dict[str, int] = field(default_factory=dict)
    zero_gradients: str = "nothing"
    """Matches the names of parameters whose gradient is exactly 0: a key's bias adds one number to all scores."""
    tokens: int = 0
    """If not 0, inputs are tokens below this number."""


IMAGES = {"b": 4, "h": 16, "w": 16}

MODELS = {
    "mlp": Entry(partial(models.MLP, x=5, y=7, m=11, k=3)),
    "attention": Entry(partial(models.MultiHeadAttention, m=6, k=5, h=4), {"y": 7, "x": 9}),
    "shared heads": Entry(
        partial(models.MultiHeadAttention, m=6, k=5, h=4, groups=2, bias=True), {"y": 7, "x": 9}, r"Lk\.bias"
    ),
    "resnet": Entry(partial(models.IdentityResNet, 2, (3, 8, 12, 16), classes=5, in_channels=2), IMAGES),
    "unet": Entry(partial(models.UNet, classes=3, channels=2, in_channels=2), IMAGES),
    "unet as drawn": Entry(partial(models.UNet.as_drawn, classes=3, channels=1, in_channels=2), IMAGES),
    "visual attention": Entry(
        partial(models.VisualAttention, c=3, k=5, heads=2, kernel=3, stride=2, bias=True),
        {"b": 4, "i": 7, "j": 8, "u": 6, "v": 9},
        r"Ck\.bias",
    ),
    "conv attention": Entry(partial(models.ConvAttention, 5, 6, 2, 3, 7, 4, 2)),
    "convolution": Entry(
        partial(
            models.Convolution, "c h w -> k h w", c=4, k=6, kernel=(2, 3), padding="same", groups=2, mode="reflect"
        ),
        {"h": 7, "w": 9},
    ),
    "convolution of the past": Entry(
        partial(models.Convolution, "c x -> k x", c=3, k=5, kernel=2, dilation=3, padding=[(3, 0)]), {"x": 8}
    ),
    "convolution over four axes": Entry(
        partial(models.Convolution, "c t d h w -> k t d h w", c=2, k=3, kernel=1), {"t": 2, "d": 3, "h": 4, "w": 5}
    ),
    "transposed convolution": Entry(
        partial(models.TransposedConvolution, "k h w -> c 2*h 2*w", k=6, c=4, kernel=2, stride=2, groups=2),
        {"h": 5, "w": 3},
    ),
    "separable convolution": Entry(
        partial(models.SeparableConvolution, "c h w -> k h w", c=4, k=6, kernel=3, padding=1), {"h": 5, "w": 3}
    ),
    "encoder layer": Entry(partial(EncoderLayer, m=6, k=5, h=2, f=8), {"x": 7}, r"Lk\.bias"),
    "decoder layer": Entry(partial(DecoderLayer, m=6, k=5, h=2, f=8, norm_first=True), {"y": 5, "x": 7}, r"Lk\.bias"),
    "encoder": Entry(partial(Encoder, m=6, k=5, h=2, f=8, depth=2), {"x": 7}, r"Lk\.bias"),
    "decoder": Entry(partial(Decoder, m=6, k=5, h=2, f=8, depth=2), {"y": 5, "x": 7}, r"Lk\.bias"),
    "transformer": Entry(
        partial(models.Transformer, m=6, k=5, h=2, f=8, encoder_depth=1, decoder_depth=2), {"y": 5, "x": 7}, r"Lk\.bias"
    ),
    "language model": Entry(
        partial(models.LanguageModel, vocabulary=13, m=6, k=4, h=2, f=8, depth=2), {"x": 7}, tokens=13
    ),  # a rotated bias of the keys is not the same for all keys: its gradient is not 0
    "language model, learned positions": Entry(
        partial(models.LanguageModel, vocabulary=13, m=6, k=5, h=2, f=8, depth=1, learned_positions=1024, tied=False),
        {"x": 7},
        r"Lk\.bias",
        tokens=13,
    ),
    "language model, Llama's layers": Entry(
        partial(
            models.LanguageModel,
            vocabulary=13,
            m=6,
            k=4,
            h=4,
            f=8,
            depth=2,
            activation=nn.SiLU,
            groups=2,
            bias=False,
            norm=nn.RMSNorm,
            feed_forward=GatedFeedForward,
            rotary=ScaledRotaryPositions(4, 100.0, length=8),
            tied=False,
            window=5,
            qkv_bias=True,
        ),
        {"x": 7},
        tokens=13,
    ),
    "language model, parallel layers": Entry(
        partial(
            models.LanguageModel,
            vocabulary=13,
            m=6,
            k=4,
            h=2,
            f=8,
            depth=2,
            parallel=True,
            rotary=RotaryPositions(4, rotated=2),
        ),
        {"x": 7},
        tokens=13,
    ),
    "sequence to sequence": Entry(
        partial(models.SequenceToSequence, 13, m=6, k=5, h=2, f=8, encoder_depth=1, decoder_depth=1, padding=0),
        {"x": 7, "y": 5},
        r"Lk\.bias",
        tokens=13,
    ),
    "vision transformer": Entry(
        partial(models.VisionTransformer, (6, 9), 3, m=6, k=5, h=2, f=8, depth=2, classes=5, in_channels=2),
        {"b": 4},
        r"Lk\.bias",
    ),
    "vision transformer, mean": Entry(
        partial(models.VisionTransformer, 6, 3, m=6, k=5, h=2, f=8, depth=1, classes=5, class_token=False),
        {"b": 4},
        r"Lk\.bias",
    ),
}

each = pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)


# --- Inputs, by the signature alone -----------------------------------------------------------------------------------


def declared(method: Any) -> Circuit:
    found = find_circuit(method)
    assert found is not None
    return found


def fixed_sizes(spec: Circuit, model: nn.Module) -> dict[str, int]:
    """The sizes of the axes that the model fixes."""
    return {name: by if isinstance(by, int) else getattr(model, by) for name, by in spec.fixed.items()}


def shape(text: str, sizes: dict[str, int], lead: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor with these axes, as text: `b (i p) h/2`."""
    found: list[int] = []
    for word in re.findall(r"\([^)]*\)|\S+", text):
        if word == "...":
            found += lead
        elif word.startswith("("):
            found.append(math.prod(shape(word[1:-1], sizes, lead)))
        else:
            found.append(eval(word.replace("/", "//"), {}, sizes))
    return tuple(found)


def random_inputs(
    entry: Entry, model: nn.Module, *, dtype: torch.dtype = torch.float32, lead: tuple[int, ...] = (4,)
) -> list[Tensor]:
    """Random inputs for `forward`."""
    spec = declared(model)
    shapes = [
        shape(slot.text, fixed_sizes(spec, model) | entry.sizes, lead) for slot in spec.slots if slot.role == "input"
    ]
    if entry.tokens:
        return [torch.randint(entry.tokens, each) for each in shapes]
    return [torch.randn(each, dtype=dtype) for each in shapes]


def randomized(model: nn.Module) -> nn.Module:
    """The model with random parameters and statistics: a bias or a head of 0 would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if "var" in name else -0.5))
    return model


def weighed(answer: Tensor) -> Tensor:
    """A sum with a different weight for every number."""
    return (answer * torch.arange(1, answer.numel() + 1, dtype=answer.dtype).cos().view_as(answer)).sum()


def gradients(answer: Tensor, model: nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(weighed(answer), parameters), strict=True))


def equal_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], entry: Entry) -> None:
    """Compare gradients, except those that are 0 up to rounding on both sides."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        if not re.search(entry.zero_gradients, name):
            torch.testing.assert_close(gradient, expected[name], msg=lambda text, name=name: f"{name}: {text}")


# --- Shapes and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.smoke
@each
@pytest.mark.parametrize("lead", [(), (2,), (53, 2)], ids=str)
def test_shapes_are_the_signatures(entry: Entry, lead: tuple[int, ...]) -> None:
    """Every free axis has a prime size of its own, on meta, where nothing is computed."""
    model = entry.make(device="meta")
    for method in (model, *([model.probabilities] if hasattr(model, "probabilities") else [])):
        spec = declared(method)
        fixed = fixed_sizes(spec, model)
        inputs = [slot for slot in spec.slots if slot.role == "input"]
        free = [name for slot in inputs for name in re.findall(r"[a-z]\w*'*", slot.text) if name not in fixed]
        primes = dict(zip(dict.fromkeys(free), (11, 13, 17, 19, 23, 29, 31, 37), strict=False))
        sizes = fixed | {name: prime * spec.multiples.get(name, 1) for name, prime in primes.items()}
        given = [
            torch.empty(shape(slot.text, sizes, lead), device="meta", dtype=slot.dtype or torch.float32)
            for slot in inputs
        ]
        answer = method(*given)  # pyright: ignore[reportCallIssue]
        assert answer.shape == shape(str(spec.signature).split("->")[1], sizes, lead)


@pytest.mark.every(4)
@each
def test_torchinfo_counts_the_same_parameters(entry: Entry) -> None:
    model = entry.make()
    summary: Any = torchinfo.summary(model, input_data=random_inputs(entry, model), verbose=0)
    assert summary.total_params == sum(parameter.numel() for parameter in model.parameters())


# --- How it is made ---------------------------------------------------------------------------------------------------


@pytest.mark.every(3)
@each
def test_device_and_dtype_are_honoured_by_every_tensor(entry: Entry) -> None:
    model = entry.make(device="meta", dtype=torch.float64)
    tensors = [*model.parameters(), *model.buffers()]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {tensor.dtype for tensor in tensors} <= {torch.float64, torch.long}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


@pytest.mark.every(3)
@each
def test_it_is_the_same_under_a_seed(entry: Entry) -> None:
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(entry.make().state_dict())
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        assert torch.equal(one, other)
    assert any(not torch.equal(one, other) for one, other in zip(states[0].values(), states[2].values(), strict=True))


def reset(model: nn.Module) -> None:
    """Re-initialize all parameters: by the model's own method, or if it has none, module by module."""
    torch.manual_seed(7)
    for module in [model] if hasattr(model, "reset_parameters") else model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # pyright: ignore[reportCallIssue]


@pytest.mark.every(4)
@each
def test_built_on_meta_and_made_later(entry: Entry) -> None:
    """No value depends on uninitialized memory."""
    later, here = entry.make(device="meta").to_empty(device="cpu"), entry.make()
    with torch.no_grad():
        for tensor in (*later.parameters(), *later.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else -99)
    reset(later)
    reset(here)
    for (name, one), other in zip(later.state_dict().items(), here.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    inputs = random_inputs(entry, later)
    assert torch.equal(later.eval()(*inputs), here.eval()(*inputs))


# --- Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.every(3)
@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kernel_is_definition(entry: Entry, dtype: torch.dtype) -> None:
    """Values, and gradients in double precision, in which rounding does not change the sign of a hidden unit."""
    model = randomized(entry.make(dtype=dtype)).eval()
    inputs = random_inputs(entry, model, dtype=dtype)
    answer = model(*inputs)
    with definitions():
        expected = model(*inputs)
    torch.testing.assert_close(answer, expected)
    if dtype == torch.float64:
        equal_gradients(gradients(answer, model), gradients(expected, model), entry)


@each
def test_examples_do_not_see_each_other(entry: Entry) -> None:
    model, order = randomized(entry.make(dtype=torch.float64)).eval(), torch.tensor([2, 0, 3, 1])
    inputs = random_inputs(entry, model, dtype=torch.float64)
    answer = model(*inputs)
    torch.testing.assert_close(model(*(data[order] for data in inputs)), answer[order])
    alone = [model(*(data[i : i + 1] for data in inputs)) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), answer)


LONG = (
    "resnet", "sequence to sequence", "visual attention", "transformer", "transposed convolution", "decoder",
    "language model", "vision transformer", "vision transformer, mean", "convolution over four axes",
)  # fmt: skip
"""The models that take a second or more to record with symbolic sizes."""


@pytest.mark.every(15)
@pytest.mark.parametrize(
    "entry", [pytest.param(MODELS[name], id=name, marks=[pytest.mark.slow] * (name in LONG)) for name in MODELS]
)
def test_the_diagram_is_the_model(entry: Entry) -> None:
    """Recorded with symbolic sizes, for one example if a signature has `...`, and run at chosen sizes."""
    model = randomized(entry.make(dtype=torch.float64)).eval()
    diagram = trace(model)
    assert diagram.box.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    inputs = random_inputs(entry, model, dtype=torch.float64, lead=())
    torch.testing.assert_close(diagram(*inputs), model(*inputs))


@each
def test_it_runs_under_autocast(entry: Entry) -> None:
    """bfloat16 keeps 8 bits: the tolerance is a few units in the last place of the largest number."""
    model = randomized(entry.make()).eval()
    inputs = random_inputs(entry, model)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(*inputs)
    expected = model(*inputs)
    assert not torch.equal(answer.float(), expected)
    torch.testing.assert_close(answer.float(), expected, rtol=0, atol=0.03 * max(1.0, expected.abs().max().item()))


# --- Training ---------------------------------------------------------------------------------------------------------


@each
def test_two_steps_change_every_parameter(entry: Entry) -> None:
    """Two steps, since with a head of 0 the first step changes only the head; no input is changed in place."""
    model = entry.make(dtype=torch.float64).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inputs = random_inputs(entry, model, dtype=torch.float64)
    given = [data.clone() for data in inputs]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        weighed(model(*inputs)).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if re.search(entry.zero_gradients, name):
            # 0 up to the rounding of sums that cancel
            torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter.grad), rtol=0, atol=1e-9)
        else:
            assert not torch.equal(parameter, before[name]), name
    for data, original in zip(inputs, given, strict=True):
        assert torch.equal(data, original)


# --- Copies and files -------------------------------------------------------------------------------------------------


def by_torch(model: nn.Module, _: Entry, __: Path) -> nn.Module:
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    return torch.load(saved, weights_only=False)


def by_state(model: nn.Module, entry: Entry, _: Path) -> nn.Module:
    other = entry.make()
    other.load_state_dict(model.state_dict())
    return other


def by_file(model: nn.Module, _: Entry, folder: Path) -> nn.Module:
    models.save(model, folder / "model.safetensors")
    return models.load(folder / "model.safetensors")


COPIES: dict[str, Callable[[nn.Module, Entry, Path], nn.Module]] = {
    "deepcopy": lambda model, _, __: copy.deepcopy(model),
    "pickle": lambda model, _, __: pickle.loads(pickle.dumps(model)),
    "torch.save": by_torch,
    "state_dict": by_state,
    "models.save": by_file,
}


@pytest.mark.every(8)
@each
@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_copies_are_equal_and_apart(
    entry: Entry, way: Callable[[nn.Module, Entry, Path], nn.Module], tmp_path: Path
) -> None:
    model = randomized(entry.make())
    other = way(model, entry, tmp_path)
    assert type(other) is type(model)
    assert repr(other) == repr(model)
    state = other.state_dict()
    assert list(state) == list(model.state_dict())
    inputs = random_inputs(entry, model)
    assert torch.equal(other.eval()(*inputs), model.eval()(*inputs))
    assert declared(other).signature == declared(model).signature
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for tensor in state.values():
            tensor.add_(1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- In training code -------------------------------------------------------------------------------------------------


@pytest.mark.every(1, 2)
@pytest.mark.slow
@each
def test_it_compiles_into_one_graph(entry: Entry) -> None:
    """Forward and reverse pass in training mode, with statistics that change but without dropout."""
    torch.compiler.reset()
    model = randomized(entry.make(dtype=torch.float64))
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # pyright: ignore[reportArgumentType]
    ours, inputs = copy.deepcopy(model), random_inputs(entry, model, dtype=torch.float64)
    answer = torch.compile(ours, fullgraph=True, dynamic=False, backend="aot_eager")(*inputs)
    expected = model(*inputs)
    torch.testing.assert_close(answer, expected)
    equal_gradients(gradients(answer, ours), gradients(expected, model), entry)
    torch.testing.assert_close(ours.state_dict(), model.state_dict())


REPLICA = """
import sys
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
import models

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(models.load(f"{folder}/model.safetensors"))
inputs = [data.chunk(2)[rank] for _, data in sorted(load_file(f"{folder}/inputs.safetensors").items())]
model(*inputs).square().mean().backward()
found = {name: each.grad for name, each in model.module.named_parameters()}
save_file(found, f"{folder}/gradients{rank}.safetensors")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "visual attention", "language model"])
def test_two_processes_compute_the_gradients_of_one(name: str, tmp_path: Path) -> None:
    """DistributedDataParallel, with half of the batch in each process."""
    entry = MODELS[name]
    model = randomized(entry.make())
    inputs = random_inputs(entry, model)
    models.save(model, tmp_path / "model.safetensors")
    save_file({f"{place}": data for place, data in enumerate(inputs)}, tmp_path / "inputs.safetensors")
    variables = os.environ | {"PYTHONPATH": f"{ROOT}"}
    replicas = [
        subprocess.Popen([sys.executable, "-c", REPLICA, tmp_path, f"{rank}"], env=variables, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for replica in replicas:
        said = replica.communicate(timeout=240)[1].decode()
        assert replica.returncode == 0, said
    model(*inputs).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for rank in range(2):
        found = load_file(tmp_path / f"gradients{rank}.safetensors")
        torch.testing.assert_close(found, expected)
