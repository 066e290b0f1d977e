# A submodule or a buffer is a Tensor or a Module to pyright.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
import copy
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import models
from circuits import CircuitError, ShapeError, definitions, find_circuit, trace
from models.vision_transformer import STANDARD, Patches, VisionTransformer
from tests import peers

both_ways = pytest.mark.parametrize("way", [nullcontext, definitions], ids=["kernel", "definition"])
both_reads = pytest.mark.parametrize("class_token", [True, False], ids=["class token", "mean"])
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

SMALL: Mapping[str, int] = {"m": 12, "k": 3, "h": 4, "f": 20, "depth": 2, "classes": 5, "in_channels": 2}


def small(**changes: Any) -> VisionTransformer:
    """A small model with 2 by 3 patches."""
    options: dict[str, Any] = {"image_size": (8, 12), "patch_size": 4, **SMALL}
    return VisionTransformer(**options | changes)


def randomized(model: nn.Module) -> Any:
    """The model with random parameters: a head that is not 0, norms that are not the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(output: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Gradients, by name, of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad((output * weights).sum(), parameters), strict=True))


def by_loops(model: VisionTransformer, image: Tensor, p: int, h: int) -> Tensor:
    """The logits computed from the state dict: patch by patch, layer by layer, head by head."""
    w = dict(model.named_parameters())
    rows, columns = (range(0, size, p) for size in image.shape[-2:])
    cut = [image[:, :, a : a + p, b : b + p].reshape(len(image), -1) for a in rows for b in columns]
    tokens = [patch @ w["patches.L.weight"].T + w["patches.L.bias"] for patch in cut]
    if "class_token" in w:
        tokens.insert(0, w["class_token"].expand(len(image), -1))
    data = torch.stack([token + position for token, position in zip(tokens, w["positions"], strict=True)], 1)

    def norm(name: str, data: Tensor) -> Tensor:
        spread = (data - data.mean(-1, keepdim=True)) / (data.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        return spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(name: str, data: Tensor) -> Tensor:
        return data @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for n in range(len(model.layers)):
        at, normed = f"layers.{n}", norm(f"layers.{n}.attention_norm", data)
        query, key, value = (linear(f"{at}.attention.{box}", normed).chunk(h, -1) for box in ("Lq", "Lk", "Lv"))
        heads = [
            ((q @ k.mT) / math.sqrt(q.shape[-1])).softmax(-1) @ v for q, k, v in zip(query, key, value, strict=True)
        ]
        data = data + linear(f"{at}.attention.Lo", torch.cat(heads, -1))
        units = linear(f"{at}.feed_forward.L1", norm(f"{at}.feed_forward_norm", data))
        data = data + linear(f"{at}.feed_forward.L2", units * (1 + torch.erf(units / math.sqrt(2))) / 2)
    return linear("head", norm("norm", data[:, 0] if "class_token" in w else data.mean(1)))


# --- Against plain code -----------------------------------------------------------------------------------------------


@both_ways
@both_reads
@both_types
def test_the_model_by_loops(way: Any, class_token: bool, dtype: torch.dtype) -> None:
    """Values and the gradient of every parameter."""
    model = randomized(small(class_token=class_token, dtype=dtype))
    image = torch.randn(3, 2, 8, 12, dtype=dtype)
    expected = by_loops(model, image, 4, 4)
    with way():
        logits = model(image)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(gradients(logits, model), gradients(expected, model))


def test_patches_are_a_strided_convolution() -> None:
    patches, image = Patches(3, 7, 2, dtype=torch.float64), torch.randn(4, 2, 6, 15, dtype=torch.float64)
    weight = patches.L.weight.view(7, 2, 3, 3)
    torch.testing.assert_close(patches(image), F.conv2d(image, weight, patches.L.bias, 3).flatten(2).mT)


@both_reads
def test_the_parts_are_the_whole(class_token: bool) -> None:
    """`embed`, the layers, `encode`, the norm, `features` and the head, one after another."""
    model, image = randomized(small(class_token=class_token)), torch.randn(3, 2, 8, 12)
    tokens = model.embed(image)
    torch.testing.assert_close(tokens[:, -6:], model.patches(image) + model.positions[-6:])
    if class_token:
        torch.testing.assert_close(tokens[:, 0], (model.class_token + model.positions[0]).expand(3, -1))
    for layer in model.layers:
        tokens = layer(tokens)
    torch.testing.assert_close(model.encode(image), tokens)
    read = model.norm(tokens)[:, 0] if class_token else model.norm(tokens.mean(1))
    torch.testing.assert_close(model.features(image), read)
    torch.testing.assert_close(model(image), model.head(read))


class Counted(nn.Module):
    """A module in place of another, which notes the shapes of its outputs; not a hook."""

    def __init__(self, inside: nn.Module, sizes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.inside, self.sizes = inside, sizes

    def forward(self, vectors: Tensor) -> Tensor:
        output = self.inside(vectors)
        self.sizes.append(tuple(output.shape))
        return output


@both_reads
def test_the_last_layer_computes_only_what_the_head_reads(class_token: bool) -> None:
    """The class token alone; in the definition, in `encode` and for a mean all vectors. Each layer is called once."""
    model, image = small(class_token=class_token), torch.randn(3, 2, 8, 12)
    sizes: list[tuple[int, ...]] = []
    for layer in model.layers:
        layer.feed_forward = Counted(layer.get_submodule("feed_forward"), sizes)
    x = 6 + class_token
    model(image)
    assert sizes == [(3, x, 12), (3, 1 if class_token else x, 12)]
    with definitions():
        model(image)
    model.encode(image)
    assert sizes[2:] == [(3, x, 12)] * 4


HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], Any]] = {
    "forward": lambda module, see: module.register_forward_hook(lambda _, __, output: see(output)),
    "before": lambda module, see: module.register_forward_pre_hook(lambda _, inputs: see(inputs[0])),
    "backward": lambda module, see: module.register_full_backward_hook(lambda _, __, outputs: see(outputs[0])),
    "before backward": lambda module, see: module.register_full_backward_pre_hook(lambda _, outputs: see(outputs[0])),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("part", ["", "attention", "attention.Lo", "feed_forward_norm"])
def test_a_hook_on_the_last_layer_sees_all_vectors(hook: str, part: str) -> None:
    """Grad-CAM of the last layer; the logits are the same, and without the hook only the class token is computed."""
    model, image, sizes = randomized(small()), torch.randn(3, 2, 8, 12), []
    expected = model(image)
    handle = HOOKS[hook](model.layers[-1].get_submodule(part), lambda vectors: sizes.append(vectors.shape[1]))
    found = model(image)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert sizes == [7]
    handle.remove()
    model.layers[-1].feed_forward = Counted(model.layers[-1].feed_forward, counted := [])
    model(image)
    assert counted == [(3, 1, 12)]


def test_without_positions_the_mean_forgets_where_the_patches_were() -> None:
    """Swapping the two rows of patches then changes nothing; with positions it does."""
    model, image = (
        randomized(small(class_token=False, dtype=torch.float64)),
        torch.randn(3, 2, 8, 12, dtype=torch.float64),
    )
    turned = torch.cat((image[:, :, 4:], image[:, :, :4]), 2)
    assert (model(turned) - model(image)).abs().max() > 1e-3
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model(turned), model(image))


# --- Parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image_size", "parameters"),
    [
        ("Ti/16", 224, 5_717_416),
        ("S/16", 224, 22_050_664),
        ("B/16", 224, 86_567_656),
        ("B/32", 224, 88_224_232),
        ("L/16", 224, 304_326_632),
        ("L/32", 224, 306_535_400),
        ("H/14", 518, 633_470_440),
    ],
)
def test_parameters_of_known_models(name: str, image_size: int, parameters: int) -> None:
    """Published numbers: Ti and S in DeiT, the others in torchvision."""
    assert count(VisionTransformer.standard(name, image_size, device="meta")) == parameters


def test_the_default_is_vit_b_16() -> None:
    default, named = VisionTransformer(device="meta"), VisionTransformer.standard("B/16", device="meta")
    assert count(default) == 86_567_656
    assert repr(default) == repr(named)


@settings(max_examples=15)
@given(sizes=st.fixed_dictionaries({name: st.integers(1, 5) for name in SMALL}), data=st.data())
def test_parameters_are_as_many_as_the_formula_says(sizes: dict[str, int], data: st.DataObject) -> None:
    p, i, j = (data.draw(st.integers(1, 4)) for _ in range(3))
    class_token = data.draw(st.booleans())
    model = small(image_size=(i * p, j * p), patch_size=p, **sizes, class_token=class_token, device="meta")
    m, k, h, f, depth, n, c = (sizes[name] for name in SMALL)
    x = i * j + class_token
    layer = 4 * m * h * k + 2 * m * f + 3 * h * k + f + 6 * m
    assert count(model) == c * p * p * m + m + x * m + class_token * m + depth * layer + 2 * m + (m + 1) * n


@both_reads
def test_names_of_the_state_are_a_promise(class_token: bool) -> None:
    boxes = ["attention.Lq", "attention.Lk", "attention.Lv", "attention.Lo", "attention_norm"]
    boxes += ["feed_forward.L1", "feed_forward.L2", "feed_forward_norm"]
    names = [*["class_token"][:class_token], "positions"]
    named = ["patches.L", *(f"layers.{n}.{box}" for n in range(2) for box in boxes), "norm", "head"]
    names += [f"{box}.{each}" for box in named for each in ("weight", "bias")]
    assert list(small(class_token=class_token, device="meta").state_dict()) == names


# --- Shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forward", "features", "encode", "embed"])
@both_reads
def test_shapes_by_the_signature(name: str, class_token: bool) -> None:
    """Every axis has a prime size of its own, on meta, where nothing is computed."""
    sizes = {"b": 2, "c": 3, "i": 5, "p": 7, "j": 11, "n": 13, "m": 17, "x": 55 + class_token}
    model = VisionTransformer(
        (5 * 7, 11 * 7), 7, m=17, k=19, h=23, f=29, depth=2, classes=13, in_channels=3, class_token=class_token,
        device="meta",
    )  # fmt: skip
    found = find_circuit(getattr(model, name))
    assert found is not None
    given, expected = str(found.signature).split(" -> ")
    assert given == "b c (i p) (j q)"
    image = torch.empty(2, 3, 5 * 7, 11 * 7, device="meta")
    assert list(getattr(model, name)(image).shape) == [sizes[axis] for axis in expected.split()]


def test_an_empty_batch_and_a_single_patch_are_images() -> None:
    assert small()(torch.rand(0, 2, 8, 12)).shape == (0, 5)
    assert small(image_size=4, depth=1)(torch.rand(1, 2, 4, 4)).shape == (1, 5)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 2, 8, 16), r"\(j q\) is 16 here, but 12: j is 3 \(fixed by VisionTransformer.j\), q is 4"),
        ((2, 2, 10, 12), r"\(i p\) is 10 here, but 8"),
        ((2, 3, 8, 12), "c is 3 here, but 2"),
        ((2, 8, 12), "forward"),
    ],
)
def test_an_image_of_another_size_is_named(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        small()(torch.rand(shape))


def test_patches_fill_an_image() -> None:
    with pytest.raises(
        ShapeError, match=r"\(j q\) is 13 here, so j is not a whole number: q is 4 \(fixed by Patches.q\)"
    ):
        Patches(4, 8)(torch.rand(2, 3, 8, 13))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": (30, 32)}, "patches 4 by 4 do not fill 30 rows; an image may have 28 or 32"),
        ({"image_size": (32, 2)}, "patches 4 by 4 do not fill 2 columns; an image may have 4"),
        ({"image_size": 0}, "do not fill 0 rows"),
        ({"patch_size": 0}, "patch_size is 0; it may be 1 or more"),
        ({"depth": 0}, "depth is 0"),
        ({"classes": 0}, "classes is 0"),
    ],
)
def test_models_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        small(**options)


@pytest.mark.parametrize("name", ["XL/16", "B", "B/", "16", "B/x", "B/0"])
def test_a_size_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(CircuitError, match=r"Ti, S, B, L, H|patch_size is 0"):
        VisionTransformer.standard(name, device="meta")


# --- In training code -------------------------------------------------------------------------------------------------


@both_reads
def test_a_step_of_training_lowers_the_loss(class_token: bool) -> None:
    model = small(class_token=class_token)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    images, classes, losses = torch.randn(6, 2, 8, 12), torch.arange(6) % 5, []
    for _ in range(4):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(5))
    assert losses[0] > losses[1] > losses[2] > losses[3]


def test_any_memory_layout_is_accepted() -> None:
    model, images = randomized(small()), torch.randn(3, 2, 8, 12)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), model(images))
    torch.testing.assert_close(model(images.mT.contiguous().mT), model(images))


def test_dropout_is_for_training() -> None:
    model, images = randomized(small(dropout=0.5, depth=1)), torch.randn(3, 2, 8, 12)
    kept = copy.deepcopy(model)
    kept.dropout = 0.0
    tokens, whole = model.embed(images), kept.embed(images)
    left = tokens.ne(0)
    assert 0.3 < left.float().mean() < 0.7
    torch.testing.assert_close(tokens[left], 2 * whole[left])
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model.eval()(images), kept.eval()(images))


def test_weights_are_initialized_as_the_docstring_says() -> None:
    model = VisionTransformer(64, 4, m=128, k=16, h=4, f=256, depth=2, classes=10)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("bias") or name in ("class_token", "head.weight"):
            assert value.eq(0).all(), name
        elif "norm" in name:
            assert value.eq(1).all(), name
        elif name.startswith("layers"):
            bound = math.sqrt(6 / sum(value.shape))
            assert 0.99 * bound < value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
    patches = state["patches.L.weight"]
    assert patches.std().item() == pytest.approx(48**-0.5, rel=0.05)
    assert 1.9 / 0.88 < patches.abs().max() * 48**0.5 <= 2 / 0.879
    assert state["positions"].std().item() == pytest.approx(0.02, rel=0.05)
    torch.testing.assert_close(model(torch.randn(3, 3, 64, 64)), torch.zeros(3, 10))


def test_it_can_be_saved_and_loaded(tmp_path: Path) -> None:
    """`models.load` restores what `models.save` wrote, also for a model with weights of another library."""
    images = torch.randn(2, 2, 8, 8)
    for model in (randomized(small(image_size=(8, 8), class_token=False)), VisionTransformer.from_timm(state(), k=3)):
        models.save(model, tmp_path / "model.safetensors")
        again = models.load(tmp_path / "model.safetensors")
        assert isinstance(again, VisionTransformer)
        assert repr(again) == repr(model)
        assert torch.equal(again(images), model(images))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch 2.13 loops over the fused kernel
@both_types
def test_it_maps_over_batches_and_differentiates_per_image(dtype: torch.dtype) -> None:
    model = randomized(small(dtype=dtype)).eval()
    images = torch.randn(3, 2, 2, 8, 12, dtype=dtype)
    torch.testing.assert_close(torch.vmap(model)(images), torch.stack([model(each) for each in images]))
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, image[None])[0, 0]

    each = torch.vmap(torch.func.grad(loss), (None, 0))(weights, images[0])
    for index, image in enumerate(images[0]):
        expected = torch.autograd.grad(loss(weights, image), list(weights.values()))
        torch.testing.assert_close([each[name][index] for name in weights], list(expected))


@pytest.mark.slow
def test_it_exports_with_any_number_of_images() -> None:
    model = randomized(small()).eval()
    program = torch.export.export(model, (torch.randn(3, 2, 8, 12),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    images = torch.randn(5, 2, 8, 12)
    torch.testing.assert_close(program.module()(images), model(images))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "backend", "dynamic"),
    [
        (lambda: small(depth=1), "aot_eager", False),
        (lambda: small(class_token=False), "aot_eager", True),
        (small, "inductor", False),
        (small, "inductor", True),
    ],
    ids=["layer", "mean", "code", "code of any size"],
)
def test_it_compiles_into_one_graph(make: Callable[..., VisionTransformer], backend: str, dynamic: bool) -> None:
    """Forward and reverse pass."""
    model = randomized(make().double())
    images = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    ours = copy.deepcopy(model)
    compiled = torch.compile(ours, fullgraph=True, dynamic=dynamic, backend=backend)
    expected, answer = model(images), compiled(images)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(gradients(answer, ours), gradients(expected, model))


# --- Its table --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_shows_the_model() -> None:
    table = trace(VisionTransformer(depth=2, device="meta")).table(depth=None, width=300)
    lines = table.splitlines()
    assert re.search(r"b c \(i p\) \(j q\) -> b n .* b 3 224 224 -> b 1000 .* 15,688,936", lines[1])
    (layers,) = [line for line in lines if "EncoderLayer" in line]
    assert re.search(r"layers\.0…1 EncoderLayer.* b x m -> b x m .* 2 × 7,087,872", layers)
    assert "fixed by" not in table
    for text in ("patches Patches", "151,296  positions", "768  class_token", "head Linear"):
        assert sum(text in line for line in lines) == 1, text


# --- Against timm and Hugging Face ------------------------------------------------------------------------------------


def timms(**options: Any) -> Any:
    """timm's model, with the sizes of `small`, but for square images."""
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 2, "num_classes": 5, "embed_dim": 12, "num_heads": 4}
    return randomized(peers.timm().models.VisionTransformer(**{**sizes, "depth": 2, "mlp_ratio": 2, **options}))


def hugging_faces(kind: str = "ViTForImageClassification", options: Any = None, **config: Any) -> Any:
    """Hugging Face's model of the same sizes."""
    theirs = peers.peer("transformers.models.vit")
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 2, "num_labels": 5, "hidden_size": 12}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, **config}
    return randomized(getattr(theirs, kind)(theirs.ViTConfig(**sizes), **options or {}))


def earlier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the names of transformers before version 5."""
    changes = [
        (r"layers\.(\d+)\.attention\.q_proj", r"encoder.layer.\1.attention.attention.query"),
        (r"layers\.(\d+)\.attention\.k_proj", r"encoder.layer.\1.attention.attention.key"),
        (r"layers\.(\d+)\.attention\.v_proj", r"encoder.layer.\1.attention.attention.value"),
        (r"layers\.(\d+)\.attention\.o_proj", r"encoder.layer.\1.attention.output.dense"),
        (r"layers\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
        (r"layers\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
        (r"layers\.(\d+)\.layernorm", r"encoder.layer.\1.layernorm"),
    ]
    named = {}
    for name, value in state.items():
        for old, new in changes:
            name = re.sub(old, new, name)
        named[name] = value
    return named


def gradient_state(theirs: nn.Module) -> dict[str, Tensor]:
    """The gradients of another library's model, as a state dict of that library."""
    return {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}


def assert_equal_models(
    ours: VisionTransformer, theirs: nn.Module, image: Tensor, answer: Callable[[Tensor], Tensor], back: Any
) -> None:
    """Check equal logits and equal gradients of every parameter; `back` converts a state dict of the other library."""
    logits, expected = ours(image), answer(image)
    torch.testing.assert_close(logits, expected)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
    (expected * weights).sum().backward()
    torch.testing.assert_close(gradients(logits, ours), dict(back(gradient_state(theirs)).state_dict()))


@pytest.mark.every(4)
@both_types
@pytest.mark.parametrize(
    "options",
    [{}, {"class_token": False, "global_pool": "avg"}, {"class_token": False, "global_pool": "avg", "fc_norm": True}],
    ids=["class token", "mean", "mean, said"],
)
def test_it_is_timms(options: dict[str, Any], dtype: torch.dtype) -> None:
    theirs = timms(**options).to(dtype)
    bring = lambda state: VisionTransformer.from_timm(state, k=3)  # noqa: E731
    ours = bring(theirs.state_dict())
    assert count(ours) == count(theirs)
    assert_equal_models(ours, theirs, torch.randn(3, 2, 8, 8, dtype=dtype), theirs, bring)


def test_its_encoding_is_timms() -> None:
    """Also the vectors of the patches, whose last layer has no effect on the logits."""
    theirs, image = timms().double(), torch.randn(3, 2, 8, 8, dtype=torch.float64)
    ours = VisionTransformer.from_timm(theirs.state_dict(), k=3)
    torch.testing.assert_close(ours.norm(ours.encode(image)), theirs.forward_features(image))
    torch.testing.assert_close(ours.features(image), theirs.forward_head(theirs.forward_features(image), True))


@pytest.mark.parametrize("size", [(8, 16), (16, 8), (8, 24)])
def test_an_oblong_image_of_timms(size: tuple[int, int]) -> None:
    """The state dict of 8 patches has 9 positions, which might be a 3 by 3 grid without one for the class token."""
    theirs, image = timms(img_size=size), torch.randn(3, 2, *size)
    patches = size[0] * size[1] // 16
    said = f"{patches} patches do not form a square; give image" if patches == 12 else "unless they are for 8 patches"
    for other in (None, 8):
        with pytest.raises(CircuitError, match=said):
            VisionTransformer.from_timm(theirs.state_dict(), k=3, image_size=other)
    with pytest.raises(CircuitError, match=f"an image of 8 has 4 patches; the weights are for {patches}"):
        VisionTransformer.from_timm(theirs.state_dict(), k=3, trained_size=8)
    with pytest.raises(CircuitError, match="patches 4 by 4 do not fill images of 9 by 8"):
        VisionTransformer.from_timm(theirs.state_dict(), k=3, trained_size=(9, 8))
    for image_size, trained_size in ((None, size), *([(size, None)] if patches == 12 else [])):
        ours = VisionTransformer.from_timm(theirs.state_dict(), k=3, image_size=image_size, trained_size=trained_size)
        torch.testing.assert_close(ours(image), theirs(image))


@both_types
@pytest.mark.parametrize("names", [dict, earlier], ids=["today", "before 5"])
def test_it_is_hugging_faces(names: Callable[[Any], dict[str, Tensor]], dtype: torch.dtype) -> None:
    theirs = hugging_faces().to(dtype)
    bring = lambda state: VisionTransformer.from_huggingface(names(state), k=3)  # noqa: E731
    ours = bring(theirs.state_dict())
    assert ours.norm.eps == theirs.config.layer_norm_eps == 1e-12
    assert count(ours) == count(theirs)
    assert_equal_models(ours, theirs, torch.randn(3, 2, 8, 8, dtype=dtype), lambda image: theirs(image).logits, bring)


def test_hugging_faces_heads_may_be_of_any_width() -> None:
    """In Hugging Face's model k is independent of m: h heads together need not have the width of a vector."""
    theirs, image = hugging_faces(head_dim=5), torch.randn(3, 2, 8, 8)
    if theirs.vit.layers[0].attention.q_proj.out_features != 20:
        pytest.skip("these transformers have no head_dim")
    ours = VisionTransformer.from_huggingface(theirs.state_dict(), k=5)
    assert ours.layers[0].attention.h == 4
    torch.testing.assert_close(ours(image), theirs(image).logits)


@pytest.mark.parametrize("names", [dict, earlier], ids=["today", "before 5"])
def test_a_model_without_a_head_gets_a_new_one(names: Callable[[Any], dict[str, Tensor]]) -> None:
    image = torch.randn(3, 2, 8, 8)
    theirs = hugging_faces("ViTModel", {"add_pooling_layer": False})
    with pytest.raises(CircuitError, match=r"no head there; with classes= .*\n  missing     classifier\.bias"):
        VisionTransformer.from_huggingface(names(theirs.state_dict()), k=3)
    ours = VisionTransformer.from_huggingface(names(theirs.state_dict()), k=3, classes=7)
    torch.testing.assert_close(ours.norm(ours.encode(image)), theirs(image).last_hidden_state)
    torch.testing.assert_close(ours(image), torch.zeros(3, 7))


@pytest.mark.parametrize("classes", [0, 5])
def test_a_new_head_for_timms(classes: int) -> None:
    theirs, image = timms(num_classes=classes), torch.randn(3, 2, 8, 8)
    ours = VisionTransformer.from_timm(theirs.state_dict(), k=3, classes=7)
    assert ours.head.weight.eq(0).all()
    torch.testing.assert_close(ours.features(image), theirs.forward_head(theirs.forward_features(image), True))
    if not classes:
        with pytest.raises(CircuitError, match=r"no head there; with classes= .*\n  missing     head\.bias\n  missing"):
            VisionTransformer.from_timm(theirs.state_dict(), k=3)


@both_reads
def test_weights_are_converted_to_timm(class_token: bool) -> None:
    """timm's model loads the converted weights; converted back they are the same bit for bit."""
    ours, image = randomized(small(image_size=8, f=24, class_token=class_token)), torch.randn(3, 2, 8, 8)
    theirs = timms(**{} if class_token else {"class_token": False, "global_pool": "avg"})
    theirs.load_state_dict(ours.to_timm())
    torch.testing.assert_close(theirs(image), ours(image))
    back = VisionTransformer.from_timm(ours.to_timm(), k=3).state_dict()
    assert all(torch.equal(value, back[name]) for name, value in ours.state_dict().items())


def test_weights_are_converted_to_hugging_face() -> None:
    ours, image = randomized(small(image_size=8, f=24, eps=1e-12)), torch.randn(3, 2, 8, 8)
    theirs = hugging_faces()
    theirs.load_state_dict(ours.to_huggingface())
    torch.testing.assert_close(theirs(image).logits, ours(image))
    with pytest.raises(CircuitError, match="ViTForImageClassification has a class token, and this model has none"):
        small(class_token=False).to_huggingface()


@pytest.mark.slow
def test_vit_b_16_is_timms_and_hugging_faces() -> None:
    """At full size, where sums of 768 numbers in another order differ by a few units in the last place of float32.

    Gradients may differ by 1e-4 of the largest in their tensor, for the same reason. Those of a key's bias are 0 up to
    rounding, and are compared relative to those of its weight.
    """
    theirs = randomized_a_little(peers.timm().create_model("vit_base_patch16_224"))
    image, ours = torch.randn(2, 3, 224, 224), VisionTransformer.from_timm(theirs.state_dict())
    logits, expected = ours(image), theirs(image)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    found, weights = gradients(logits, ours), torch.linspace(-1, 1, expected.numel()).view_as(expected)
    (expected * weights).sum().backward()
    wanted = VisionTransformer.from_timm(gradient_state(theirs)).state_dict()
    for name, gradient in wanted.items():
        largest = wanted[name.replace("Lk.bias", "Lk.weight")].abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-4 * largest)
    vit = peers.peer("transformers.models.vit")
    others = vit.ViTForImageClassification(vit.ViTConfig(num_labels=1000, layer_norm_eps=1e-6)).eval()
    others.load_state_dict(ours.to_huggingface())
    with torch.no_grad():
        torch.testing.assert_close(others(image).logits, expected, rtol=1e-4, atol=1e-4)


def randomized_a_little(model: nn.Module) -> Any:
    """As `randomized`, with changes so small that numbers keep their magnitude through twelve layers."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model


# --- Modules, prefixes and other sizes --------------------------------------------------------------------------------


TIMMS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean": {"class_token": False, "global_pool": "avg"},
    "oblong": {"img_size": (8, 16)},
    "oblong with as many patches as a square": {"img_size": (4, 16)},
    "oblong patches": {"img_size": 16, "patch_size": (4, 8)},
    "ReLU": {"act_layer": nn.ReLU},
    "tanh": {"act_layer": partial(nn.GELU, approximate="tanh")},
    "eps": {"norm_layer": partial(nn.LayerNorm, eps=1e-3)},
}


@pytest.mark.parametrize("case", TIMMS)
def test_a_module_of_timms_says_all(case: str) -> None:
    """Sizes, width of a head, activation, eps and mode are those of the module."""
    theirs = timms(**TIMMS[case]).eval()
    image = torch.randn(3, 2, *theirs.patch_embed.img_size)
    ours = VisionTransformer.from_timm(theirs)
    assert not ours.training
    assert VisionTransformer.from_timm(theirs.train()).training
    torch.testing.assert_close(ours(image), theirs.eval()(image))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init_values": 0.1}, ":\n  the model there has LayerScale, which VisionTransformer has not\n  unexpected"),
        ({"no_embed_class": True}, r"no position for the class token \(timm's no_embed_class\), which has no equal"),
        ({"global_pool": "avg"}, "global_pool is 'avg'; of a model with a class token it may be 'token'"),
        ({"global_pool": "avg", "fc_norm": False}, "global_pool is 'avg'; of a model with a class token"),
        ({"qk_norm": True}, "norms of queries and keys"),
        ({"qkv_bias": False}, r"have no bias there \(qkv_bias=False\)\n  missing     blocks.0.attn.qkv.bias"),
        ({"reg_tokens": 2}, "register tokens"),
        ({"pre_norm": True}, r"a norm before the first layer \(pre_norm\)"),
        ({"act_layer": nn.Softplus, "norm_layer": nn.LayerNorm}, ""),
        ({"act_layer": partial(nn.Softplus, beta=2.0)}, r"the activation is Softplus\(beta=2.0"),
        ({"class_token": False, "global_pool": "max"}, "global_pool is 'max'; of a model with no class token it may"),
    ],
)  # fmt: skip
def test_modules_of_timms_without_an_equal_are_refused_with_the_reason(options: dict[str, Any], said: str) -> None:
    theirs = timms(**options)
    if not said:
        VisionTransformer.from_timm(theirs)
        return
    with pytest.raises(CircuitError, match=said):
        VisionTransformer.from_timm(theirs)


def test_layers_and_models_of_another_class_are_refused_by_their_class() -> None:
    blocks = peers.timm().models.vision_transformer
    with pytest.raises(CircuitError, match="has a ResPostBlock, which may be timm's Block here"):
        VisionTransformer.from_timm(timms(block_fn=blocks.ResPostBlock))
    with pytest.raises(CircuitError, match="has a Linear, which may be timm's VisionTransformer here"):
        VisionTransformer.from_timm(nn.Linear(2, 2))


def test_positions_without_a_class_token_are_never_another_grid() -> None:
    theirs = timms(img_size=16, no_embed_class=True).state_dict()
    for size in (None, 16, (12, 20), (8, 32)):
        with pytest.raises(CircuitError, match=r"\(timm's no_embed_class\), which has no equal here"):
            VisionTransformer.from_timm(theirs, k=3, image_size=size)
    with pytest.raises(CircuitError, match=r"\(timm's no_embed_class\), which has no equal here"):
        VisionTransformer.from_timm(timms(img_size=(8, 16), no_embed_class=True).state_dict(), k=3, image_size=(8, 16))
    with pytest.raises(
        CircuitError, match=r"16 patches may be a 4 by 4 grid, or the 2 by 8 one of image_size; give trained"
    ):
        VisionTransformer.from_timm(timms(img_size=16).state_dict(), k=3, image_size=(8, 32))
    oblong, image = timms(img_size=(12, 20)), torch.randn(2, 2, 12, 20)
    ours = VisionTransformer.from_timm(oblong.state_dict(), k=3, trained_size=(12, 20))
    torch.testing.assert_close(ours(image), oblong(image))


@both_types
@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}], ids=["class token", "mean"])
@pytest.mark.parametrize(("before", "after"), [(16, 24), (16, (8, 20)), ((8, 24), 12), (24, 4)])
def test_another_size_is_resampled_as_by_timm(
    before: Any, after: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """At load and by the method; timm's model resamples its positions when it is given images of another size."""
    theirs = timms(img_size=before, dynamic_img_size=True, **options).to(dtype).eval()
    size = (after, after) if isinstance(after, int) else after
    image = torch.randn(3, 2, *size, dtype=dtype)
    expected = theirs(image)
    loaded = VisionTransformer.from_timm(theirs, image_size=after)
    ours = VisionTransformer.from_timm(theirs)
    changed = ours.resized(after)
    for each in (loaded, changed):
        torch.testing.assert_close(each(image), expected)
    kept = ours.positions[: ours.class_token is not None]
    assert torch.equal(changed.positions[: len(kept)], kept)
    assert len(ours.positions) != len(changed.positions)
    back = changed.resized(before)
    assert back.positions.shape == ours.positions.shape
    assert not torch.equal(back.positions, ours.positions)


def test_a_resized_model_is_a_copy_that_can_be_saved(tmp_path: Path) -> None:
    model, image = randomized(small()).eval(), torch.randn(3, 2, 16, 4)
    kept = copy.deepcopy(model.state_dict())
    changed = model.resized((16, 4))
    assert not changed.training
    models.save(changed, tmp_path / "model.safetensors")
    again = models.load(tmp_path / "model.safetensors").eval()
    assert torch.equal(again(image), changed(image))
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.zero_()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.resized((8, 12)).positions, kept["positions"])
    for size, said in (
        ((8, 13), "4 by 4 do not fill 13 columns; an image may have 12 or 16"),
        ("8", "a size may be a"),
    ):
        with pytest.raises(CircuitError, match=said):
            model.resized(size)


def test_oblong_patches() -> None:
    """Of 4 rows and 8 columns, as a strided convolution cuts them; timm's and Hugging Face's are the same."""
    image = torch.randn(3, 2, 16, 16)
    model = randomized(small(image_size=16, patch_size=(4, 8)))
    assert (model.i, model.j, model.p, model.q, model.x) == (4, 2, 4, 8, 9)
    weight = model.patches.L.weight.view(12, 2, 4, 8)
    expected = F.conv2d(image, weight, model.patches.L.bias, (4, 8)).flatten(2).mT
    torch.testing.assert_close(model.patches(image), expected)
    theirs = timms(img_size=16, patch_size=(4, 8))
    theirs.load_state_dict(randomized(small(image_size=16, patch_size=(4, 8), f=24)).to_timm())
    torch.testing.assert_close(VisionTransformer.from_timm(theirs)(image), theirs(image))
    others = hugging_faces(image_size=16, patch_size=(4, 8))
    torch.testing.assert_close(VisionTransformer.from_huggingface(others)(image), others(image).logits)
    for size, said in (((4, 5), "patches 4 by 5 do not fill 16 columns; an image may have 15 or 20"), ((0, 4), "is 0")):
        with pytest.raises(CircuitError, match=said):
            small(image_size=16, patch_size=size)
    for size in ((1, 2, 3), "abc", None):
        with pytest.raises(CircuitError, match=r"a size may be a whole number, or rows and columns"):
            small(image_size=16, patch_size=size)


def test_a_prefix_is_told_whole_and_stripped_if_asked() -> None:
    model = small(image_size=8, f=24)
    for prefix in ("module.", "_orig_mod.module.", "model.vit."):
        wrapped = {prefix + name: value for name, value in model.to_timm().items()}
        with pytest.raises(models.WeightsError, match=rf'every name there begins with "{prefix}"; prefix="{prefix}"'):
            VisionTransformer.from_timm(wrapped, k=3)
        back = VisionTransformer.from_timm(wrapped, k=3, prefix=prefix).state_dict()
        assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())
    wrapped = {f"model.{name}": value for name, value in model.to_huggingface().items()}
    with pytest.raises(models.WeightsError, match=r'begins with "model\."; prefix="model\." strips'):
        VisionTransformer.from_huggingface(wrapped, k=3)
    assert VisionTransformer.from_huggingface(earlier(wrapped), k=3, prefix="model.").n == 5
    theirs = timms()
    torch.testing.assert_close(
        VisionTransformer.from_timm(nn.DataParallel(theirs), prefix="module.").positions, theirs.pos_embed[0]
    )


@pytest.mark.parametrize("options", [{}, {"hidden_act": "relu", "layer_norm_eps": 1e-3}, {"image_size": (8, 16)}])
def test_a_module_or_a_folder_of_hugging_faces_says_all(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = hugging_faces(**options).eval()
    size = theirs.config.image_size
    image = torch.randn(3, 2, *((size, size) if isinstance(size, int) else size))
    theirs.save_pretrained(tmp_path, max_shard_size="3kB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    for weights in (theirs, tmp_path, tmp_path / "model.safetensors.index.json"):
        ours = VisionTransformer.from_huggingface(weights)
        torch.testing.assert_close(ours(image), theirs(image).logits)
    assert VisionTransformer.from_huggingface(theirs, image_size=16).i == 4
    config = {**theirs.config.to_dict(), "model_type": "deit"}
    with pytest.raises(CircuitError, match="model_type is deit; it may be vit"):
        VisionTransformer.from_huggingface(theirs.state_dict(), config=config)
    with pytest.raises(CircuitError, match="the activation is quick_gelu"):
        VisionTransformer.from_huggingface(
            theirs.state_dict(), config=theirs.config.to_dict() | {"hidden_act": "quick_gelu"}
        )


def test_a_file_of_timms_with_settings_that_change_the_outputs(tmp_path: Path) -> None:
    """`config.json` beside a file, as timm writes it."""
    save_file(small(image_size=8, f=24).to_timm(), tmp_path / "model.safetensors")
    assert VisionTransformer.from_timm(tmp_path, k=3).n == 5
    for config, said in (
        ({"global_pool": "avg"}, "global_pool is 'avg'"),
        ({"model_args": {"no_embed_class": True}}, "no_emb"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CircuitError, match=said):
            VisionTransformer.from_timm(tmp_path, k=3)


# --- Weights of something else ----------------------------------------------------------------------------------------


def state(**changes: Tensor) -> dict[str, Tensor]:
    """A state dict of timm with some tensors replaced, added or removed."""
    found = small(image_size=8).to_timm()
    return {name: value for name, value in {**found, **changes}.items() if value.numel()}


GONE = torch.empty(0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (state(**{"norm.weight": GONE}), "  missing     norm.weight"),
        (state(**{"blocks.1.attn.qkv.bias": GONE}), r"no bias there \(qkv_bias=False\)\n  missing     blocks.1.attn"),
        (
            state(**{"blocks.0.ls1.gamma": torch.ones(12)}),
            "VisionTransformer.from_timm cannot take these weights:\n"
            "  the model there has LayerScale, which VisionTransformer has not\n"
            "  unexpected  blocks.0.ls1.gamma$",
        ),
        (state(**{"blocks.0.attn.q_norm.weight": torch.ones(3)}), r"has norms of queries and keys \(qk_norm\), which"),
        (state(reg_token=torch.ones(1, 4, 12)), "has register tokens, which VisionTransformer has not"),
        (state(**{"norm_pre.weight": torch.ones(12)}), "has a norm before the first layer"),
        (state(dist_token=torch.ones(1, 1, 12)), "has a distillation token"),
        (state(**{"blocks.0.mlp.norm.weight": torch.ones(24)}), "has another feed-forward network"),
        (state(pos_embed=GONE), "there are no learned positions there\n  missing     pos_embed"),
        (state(**{"blocks.3.norm1.bias": torch.ones(12)}), "  missing     blocks.2.attn.proj.bias"),
        (state(cls_token=GONE), "neither a class token nor a norm after the mean .*\n  missing     cls_token"),
        (state(**{"fc_norm.weight": torch.ones(12)}), r"has a norm after the mean .*\n  unexpected  fc_norm.weight"),
        ({}, "weights:\n(  missing .*\n)*  missing     and 8 more"),
        (state(**{"norm.weight": torch.ones(11)}), r"norm.weight, which has other axes\n(.*\n)*.*m is 11 here, but 12"),
        (state(**{"blocks.1.attn.qkv.bias": torch.ones(35)}), r"qkv.bias, which.*\n(.*\n)*.*35 here, but 36"),
        (state(pos_embed=torch.ones(5, 12)), "pos_embed, which has other axes"),
        (state(norm_pre=torch.ones(1)), "unexpected  norm_pre$"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(given: dict[str, Tensor], said: str) -> None:
    with pytest.raises(CircuitError, match=said) as caught:
        VisionTransformer.from_timm(given, k=3)
    assert str(caught.value).startswith("VisionTransformer.from_timm")


def test_the_width_of_a_head_is_known_for_standard_sizes_only() -> None:
    for name, sizes in STANDARD.items():
        made = VisionTransformer.standard(f"{name}/8", 8, depth=1, classes=2, f=8)
        found = VisionTransformer.from_timm(made.to_timm()).layers[0].attention
        assert (found.k, found.h) == (sizes["k"], sizes["h"])
    for k in (None, 5):
        with pytest.raises(CircuitError, match="head does not follow from the weights; give k=, a divisor of 12"):
            VisionTransformer.from_timm(state(), k=k)


@both_types
def test_weights_are_copied_as_they_are(dtype: torch.dtype) -> None:
    """The dtype and the values are the same, no memory is shared, and no random number is drawn."""
    given = {name: value.to(dtype) for name, value in state().items()}
    before = torch.get_rng_state()
    ours = VisionTransformer.from_timm(given, k=3, dropout=0.5)
    assert torch.equal(before, torch.get_rng_state())
    assert {parameter.dtype for parameter in ours.parameters()} == {dtype}
    assert all(parameter.requires_grad for parameter in ours.parameters())
    assert ours.layers[0].dropout == 0.5
    kept = ours.norm.bias.clone()
    given["norm.bias"].add_(1)
    assert torch.equal(ours.norm.bias, kept)
