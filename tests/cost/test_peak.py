"""Peak live bytes, and what torch's MemTracker measures of real runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

import models
from circuits import Cost, count, definitions, forward_backward, trace
from tests import peers
from tests.cost.claims import attention


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: peers.timm().create_model(name, num_classes=10, **options)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "mlp": (lambda: models.MLP(x=64, y=64, m=256, k=10), (torch.randn(32, 64, 64),)),
    "vision transformer": (
        lambda: models.VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=2, classes=10, in_channels=1),
        (torch.randn(16, 1, 28, 28),),
    ),
    "resnet": (
        lambda: models.IdentityResNet(2, (3, 8, 12, 16), classes=5, in_channels=3), (torch.randn(8, 3, 32, 32),)
    ),
    "layers": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        ),
        (torch.randn(8, 3, 32, 32),),
    ),
    "in place": (
        lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(inplace=True), nn.Linear(256, 256), nn.SiLU(inplace=True)),
        (torch.randn(32, 64),),
    ),
    "lstm": (lambda: nn.LSTM(32, 64), (torch.randn(20, 8, 32),)),
    "timm's resnet18": (_timm("resnet18"), (torch.randn(4, 3, 64, 64),)),
    "timm's regnet": (_timm("regnetx_002"), (torch.randn(4, 3, 64, 64),)),
    "timm's vision transformer": (_timm("vit_tiny_patch16_224", img_size=64), (torch.randn(4, 3, 64, 64),)),
    "timm's mobilenet": (_timm("mobilenetv3_small_050"), (torch.randn(4, 3, 64, 64),)),
    "timm's convnext": (_timm("convnext_atto"), (torch.randn(4, 3, 64, 64),)),
}  # fmt: skip


def measured(run: Callable[[], Any], model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """The most bytes that are live at once in a run, parameters and buffers left out."""
    tracker = MemTracker()
    tracker.track_external(model, *inputs)
    with tracker:
        run()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    return peak - sum([each.untyped_storage().nbytes() for each in (*model.parameters(), *model.buffers())])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_peak_is_that_of_a_run(name: str) -> None:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad(), definitions():
        found = measured(lambda: model(*inputs), model, inputs)
    assert count(trace(model, *inputs)).total.peak == pytest.approx(found, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "resnet", "in place", "timm's resnet18", "timm's regnet"])
def test_peak_of_both_passes_is_that_of_a_training_step(name: str) -> None:
    make, inputs = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    cost = count(trace(model, *inputs), backward=True)
    given = tuple([x.clone().requires_grad_() for x in inputs])

    def step() -> None:
        with definitions():
            output = model(*given)
        output.backward(torch.ones_like(output))

    assert cost.total.peak == pytest.approx(measured(step, model, given), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [(), "y x"])
def test_saved_bytes_are_those_of_forward_backward(recompute: Any) -> None:
    sizes = {"y": 40, "x": 30, "k": 8}
    found = count(attention, backward=True, recompute=recompute, sizes=sizes)
    assert found.total.saved == forward_backward(attention, recompute=recompute, sizes=sizes).bytes


def test_views_of_one_storage_are_saved_once() -> None:
    def twice(x: Tensor) -> Tensor:
        y = x.exp()
        return (y * y.t()).sin() * y.t().unsqueeze(0)

    def saved(cost: Cost) -> Any:
        return cost.total.saved

    found = count(twice, axes="8 8", backward=True)
    assert saved(found) <= forward_backward(trace(twice, axes="8 8")).bytes
    assert saved(found) == 3 * 4 * 64
