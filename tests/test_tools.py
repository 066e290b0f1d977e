"""Each block of README's "Use with other tools", run where the tool is installed, and compared with the model."""

import copy
import importlib
import importlib.util
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits.models import VisionTransformer
from tests.test_readme import BLOCKS, ROOT, TOOLS

NEEDS = {
    "torch.compile": (),
    "onnx_program": ("onnx", "onnxscript"),
    "DistributedDataParallel": (),
    "lightning": ("lightning",),
    "SummaryWriter": ("tensorboard",),
    "torchao": ("torchao",),
}
"""For each block a text that it alone has, and the packages that it needs."""

FOUND = [block for block in BLOCKS if block.kind == "python" and block.line in TOOLS]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the blocks read, in a folder of their own; every weight counts, also that of a head of zeros."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=1, classes=10, in_channels=1).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the tools
        yield {"torch": torch, "nn": nn, "model": model, "image": torch.rand(2, 1, 28, 28)}


@pytest.fixture
def run(names: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs the block that has a text, and returns its names."""

    def run(text: str) -> dict[str, Any]:
        for package in NEEDS[text]:
            pytest.importorskip(package)
        (block,) = [block for block in FOUND if text in block.text]
        exec(block.text, names)
        return names

    return run


def output(names: dict[str, Any], image: Tensor) -> Tensor:
    with torch.no_grad():
        return names["model"](image)


def test_every_block_has_a_test() -> None:
    assert len(FOUND) == len(NEEDS)
    assert all(sum(text in block.text for block in FOUND) == 1 for text in NEEDS)


@pytest.mark.slow
def test_compile_and_export(run: Callable[[str], dict[str, Any]]) -> None:
    found, images = run("torch.compile"), torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(found["program"].module()(images), output(found, images))
    torch.testing.assert_close(found["fast"](images), output(found, images))


@pytest.mark.slow
def test_onnx(run: Callable[[str], dict[str, Any]]) -> None:
    """Its file computes the same in the evaluator of the onnx package, which is none of torch's."""
    found, images = run("onnx_program"), torch.rand(5, 1, 28, 28)
    from onnx.reference import ReferenceEvaluator

    (computed,) = ReferenceEvaluator("model.onnx").run(None, {"image": images.numpy()})
    # float32 in numpy, which adds in another order: 2e-7 apart when this was written, logits of up to 0.8
    torch.testing.assert_close(torch.as_tensor(computed), output(found, images), rtol=1e-4, atol=1e-5)


def test_data_parallel(run: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    try:
        found = run("DistributedDataParallel")
        alone = copy.deepcopy(found["model"])
        found["parallel"](found["image"]).square().sum().backward()
        alone(found["image"]).square().sum().backward()
        pairs = zip(found["model"].parameters(), alone.parameters(), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours.grad, theirs.grad)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


TRAIN = """
import copy, torch
from torch import nn
from circuits.models import VisionTransformer

model = VisionTransformer(28, 7, m=32, k=8, h=4, f=64, depth=1, classes=10, in_channels=1)
{block}
before = copy.deepcopy(model.state_dict())
pairs = torch.utils.data.TensorDataset(torch.rand(8, 1, 28, 28), torch.randint(10, (8,)))
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet)
trainer.fit(Classifier(), torch.utils.data.DataLoader(pairs, 4))
after = model.state_dict()
print(trainer.global_step, all(not torch.equal(before[name], after[name]) for name in before))
"""


@pytest.mark.slow
def test_lightning(tmp_path: Path) -> None:
    """In a process of its own, since the package replaces `torch.compile`."""
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    (block,) = [block for block in FOUND if "lightning" in block.text]
    paths = os.pathsep.join([f"{ROOT}", os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAIN.format(block=block.text)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["4", "True"], done.stderr


def test_tensorboard(run: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph that it reads back has the modules of the model."""
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)  # the tests of the scripts hide it
    run("SummaryWriter")
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator("board").Reload()
    assert "VisionTransformer/" in f"{board.Graph()}"


@pytest.mark.slow
def test_quantization(run: Callable[[str], dict[str, Any]], names: dict[str, Any]) -> None:
    before = output(names, names["image"])
    found = run("torchao")
    weights = [module.weight for module in found["model"].modules() if isinstance(module, nn.Linear)]
    assert weights
    assert all(type(weight).__name__ == "Int8Tensor" for weight in weights)
    after = output(found, found["image"])
    assert not torch.equal(after, before)
    # weights of eight bits are off by up to 1/255 of the largest: 0.004 when this was written, logits of up to 0.8
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.02)
