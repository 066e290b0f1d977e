"""Files of weights, and state dicts that do not fit. tests/models/test_zoo.py saves and loads every model."""

import copy
import functools
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
from circuits import CircuitError, circuit
from models.layers import FeedForward, Linear, NormActivate, ResidualConnection
from models.parts.positions import RotaryPositions
from models.resnet import Block
from models.weights import configuration
from models.weights.files import CLASSES


@models.savable
class Tied(nn.Module):
    """A minimal language model whose embedding and head share one parameter."""

    def __init__(self, v: int, m: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(v, m)
        self.head = nn.Linear(m, v, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


def small(**changes: Any) -> models.MultiHeadAttention:
    return models.MultiHeadAttention(**{"m": 6, "k": 3, "h": 4, **changes})


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def rewritten(path: Path, **changes: str) -> None:
    """Rewrite the file with other metadata; an empty text removes an entry."""
    entries = metadata(path) | {f"models.{name}": text for name, text in changes.items()}
    save_file(load_file(path), path, {name: text for name, text in entries.items() if text})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# --- What a file holds ------------------------------------------------------------------------------------------------


def test_any_reader_of_safetensors_finds_the_state_dict_and_what_it_is_of(path: Path) -> None:
    model = small(bias=True)
    models.save(model, path)
    found = load_file(path)
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value)
    entries = metadata(path)
    assert json.loads(entries.pop("models.arguments"))["kwargs"]["bias"] is True
    assert entries == {
        "format": "pt",
        "models.format": "1",
        "models.class": "MultiHeadAttention",
        "models.module": "circuits.models.attention",
        "models.tied": "{}",
    }


def test_defaults_are_written_so_that_a_later_default_changes_no_file(path: Path) -> None:
    models.save(models.UNet(channels=1), path)
    written = json.loads(metadata(path)["models.arguments"])
    assert written == {"args": [], "kwargs": {"classes": 2, "channels": 1, "in_channels": 1, "loads": 4}}


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("make", "input"),
    [
        (lambda: Linear("m -> h k", m=3, h=2, k=5, bias=False), (4, 3)),
        (lambda: FeedForward(4, 8, nn.GELU), (3, 4)),
        (lambda: FeedForward(4, 8, functools.partial(nn.GELU, approximate="tanh")), (3, 4)),
        (lambda: NormActivate(6, functools.partial(nn.GroupNorm, 3), nn.SiLU), (2, 6, 4, 4)),
        (lambda: Block(2, 3, 4, 8, bias=True), (2, 4, 6, 6)),
        (lambda: models.IdentityResNet(1, [2, 4, 8, 12], classes=3), (2, 3, 8, 8)),
        (lambda: models.UNet.as_drawn(classes=3, channels=1), (1, 1, 16, 16)),
        (lambda: ResidualConnection(Linear("m -> m", m=4), FeedForward(4, 8, nn.Tanh)), (3, 4)),
    ],
)
def test_constructor_arguments_are_saved_and_loaded(
    make: Callable[[], nn.Module], input: tuple[int, ...], path: Path
) -> None:
    model, data = make().eval(), torch.randn(input)
    models.save(model, path)
    again = models.load(path).eval()
    assert type(again).__qualname__ == type(model).__qualname__
    assert repr(again) == repr(model)
    assert torch.equal(again(data), model(data))


def test_modules_among_the_arguments_are_saved_and_loaded(path: Path) -> None:
    model, data = small(k=4, rotary=RotaryPositions(4, base=100.0)), torch.rand(5, 6)
    models.save(model, path)
    assert torch.equal(models.load(path)(data, data), model(data, data))


def test_a_model_from_torchs_own_is_savable(path: Path) -> None:
    theirs = nn.MultiheadAttention(6, 2)
    ours, data = models.MultiHeadAttention.from_torch(theirs), torch.rand(5, 6)
    models.save(ours, path)
    torch.testing.assert_close(models.load(path)(data, data), theirs(data, data, data)[0])


def test_tied_parameters_are_written_once_and_stay_tied(path: Path) -> None:
    model, tokens = Tied(7, 3), torch.arange(7)
    models.save(model, path)
    assert [*load_file(path)] == ["embedding.weight"]
    again = models.load(path, dtype=torch.float64)
    assert isinstance(again, Tied)
    assert again.head.weight is again.embedding.weight
    torch.testing.assert_close(again(tokens), model.double()(tokens))
    again(tokens).square().sum().backward()
    assert again.embedding.weight.grad is not None


def test_what_was_tied_and_is_no_longer_is_written_twice(path: Path) -> None:
    model = Tied(7, 3)
    model.head.weight = nn.Parameter(torch.ones(7, 3))
    models.save(model, path)
    again: Any = models.load(path)
    assert torch.equal(again.head.weight, torch.ones(7, 3))
    assert torch.equal(again.embedding.weight, model.embedding.weight)


def test_views_of_one_memory_and_any_layout_are_written(path: Path) -> None:
    model, shared = models.MLP(2, 2, m=4, k=4), torch.randn(2, 4, 4)
    for place, layer in enumerate((0, 2, 4)):
        model.get_submodule(f"linear_relu_stack.{layer}").weight = nn.Parameter(shared[place % 2].T)
    models.save(model, path)
    again = models.load(path)
    for one, other in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len({each.untyped_storage().data_ptr() for each in again.parameters()}) == 6


def test_precisions_are_the_files_unless_asked(path: Path) -> None:
    model = models.IdentityResNet(1, (2, 4, 8, 12)).bfloat16()
    model.linear.float()
    models.save(model, path)
    for again, floating in ((models.load(path), None), (models.load(path, dtype=torch.float64), torch.float64)):
        for name, value in again.state_dict().items():
            own = model.state_dict()[name]
            assert value.dtype == (floating if floating and own.is_floating_point() else own.dtype)
            torch.testing.assert_close(value.double(), own.double())
    with pytest.raises(CircuitError, match=r"a floating one, such as torch\.bfloat16, not torch\.int8"):
        models.load(path, dtype=torch.int8)


@pytest.mark.slow
def test_loading_draws_nothing_and_goes_where_it_is_asked(path: Path) -> None:
    models.save(models.UNet(channels=1), path)
    before = torch.get_rng_state()
    again = models.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.training
    assert all(each.requires_grad for each in again.parameters())
    assert {each.device.type for each in models.load(path, device="meta").parameters()} == {"meta"}
    with torch.device("meta"):
        assert {each.device.type for each in models.load(path).parameters()} == {"meta"}


def test_a_loaded_model_does_not_depend_on_its_file(path: Path) -> None:
    model = small()
    models.save(model, path)
    again = models.load(path)
    size = path.stat().st_size
    with path.open("r+b") as file:  # the same file is overwritten in place
        file.write(b"\0" * size)
    for one, other in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", [pickle.dumps, None])
def test_copies_keep_their_constructor_arguments(way: Any, path: Path) -> None:
    model = FeedForward(4, 8, nn.GELU)
    models.save(pickle.loads(way(model)) if way else copy.deepcopy(model), path)
    assert torch.equal(models.load(path)(torch.ones(4)), model(torch.ones(4)))


def test_a_signature_given_to_an_instance_does_not_hide_its_class(path: Path) -> None:
    model = circuit("b c0 h w -> b c1 h w", fixed="c0 c1")(models.UNet(channels=1).middle)
    models.save(model, path)
    assert models.load(path)(torch.rand(1, 8, 4, 4)).shape == (1, 16, 4, 4)


# --- What cannot be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "activation", [lambda: nn.ReLU(), type("Own", (nn.ReLU,), {}), functools.partial(type("Own", (nn.ReLU,), {}), True)]
)
def test_an_argument_that_no_file_can_hold_is_refused_by_name(activation: Any, path: Path) -> None:
    with pytest.raises(CircuitError, match=r"the argument activation of FeedForward, .*(lambda|Own)") as caught:
        models.save(FeedForward(4, 8, activation), path)
    assert "torch.nn's CELU, ELU, GELU" in str(caught.value)
    assert not path.exists()


def test_modules_of_others_are_refused(path: Path) -> None:
    with pytest.raises(CircuitError, match=r"mainline of ResidualConnection, a torch\.nn\.modules\.linear\.Linear"):
        models.save(ResidualConnection(nn.Linear(3, 3)), path)
    with pytest.raises(
        CircuitError, match=r"Sequential is not a class marked savable, as .*MLP.*, save the one inside"
    ):
        models.save(nn.Sequential(models.MLP()), path)
    with pytest.raises(CircuitError, match="DataParallel is not a class marked savable"):
        models.save(nn.DataParallel(models.MLP(2, 2, 2, 2)), path)


def test_a_subclass_is_not_taken_for_its_base(path: Path) -> None:
    class MLP(models.MLP):
        pass

    with pytest.raises(CircuitError, match="MLP is not a class marked savable"):
        models.save(MLP(2, 2, 2, 2), path)


def test_what_has_changed_since_it_was_made_is_refused(path: Path) -> None:
    model = models.MLP(2, 2, m=4, k=3)
    model.linear_relu_stack[4] = nn.Linear(4, 5)
    with pytest.raises(CircuitError) as caught:
        models.save(model, path)
    assert "this MLP has changed since it was made" in str(caught.value)
    assert "axes        linear_relu_stack.4.weight: k 4 is 3 4 here, 5 4 there" in str(caught.value)


def test_a_buffer_outside_the_state_dict_is_refused(path: Path) -> None:
    model = small()
    model.register_buffer("seen", torch.zeros(3), persistent=False)
    models.save(model, path)  # the class makes no such buffer: it is not part of the model

    @models.savable
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sines", torch.arange(4).sin(), persistent=False)

    try:
        with pytest.raises(CircuitError, match="sines of this Table would not be in the file"):
            models.save(Table(), path)
    finally:
        del CLASSES["Table"]


def test_a_model_without_data_is_refused(path: Path) -> None:
    with pytest.raises(CircuitError, match=r"Lq\.weight of this MultiHeadAttention has no data: it is on meta"):
        models.save(small(device="meta"), path)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"models\.unet has a UNet already"):
        models.savable(type("UNet", (nn.Module,), {}))
    assert CLASSES["UNet"] is models.UNet


def test_a_file_is_written_completely_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.save(small(), path)
    before = path.read_bytes()

    def killed(tensors: Any, beside: Path, entries: Any) -> None:
        beside.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("models.weights.files.save_file", killed)
    with pytest.raises(OSError, match="no space"):
        models.save(small(), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


_KILLED = """
import os, sys, models
from models.weights import files

def write(tensors, path, entries):
    open(path, "wb").write(b"half")
    sys.stdout.write("writing")
    sys.stdout.flush()
    os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else sys.stdin.read()

files.save_file = write
models.save(models.MultiHeadAttention(m=6, k=3, h=2), sys.argv[1])
"""


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed_by_the_next_save(path: Path) -> None:
    others = [path.with_name(name) for name in (f".{path.name}.backup", f".{path.name}.0123456", ".other.01234567")]
    for each in others:
        each.mkdir()
    assert subprocess.run([sys.executable, "-c", _KILLED, path, "killed"], stdout=subprocess.PIPE).returncode == -9
    left = {*path.parent.iterdir()} - {*others}
    assert len(left) == 1
    models.save(small(), path)
    assert {*path.parent.iterdir()} == {path, *others}


@pytest.mark.slow
def test_what_another_process_is_writing_is_not_removed(path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, path, "waits"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.read(7) == b"writing"
        models.save(small(), path)
        assert len([*path.parent.iterdir()]) == 2
        other.communicate()
    assert [*path.parent.iterdir()] == [path]
    with pytest.raises(CircuitError, match="not a complete safetensors file"):
        models.load(path)  # the other process ended its write last


def test_a_folder_that_does_not_exist_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        models.save(small(), path.parent / "nowhere" / path.name)


def test_a_file_has_the_permissions_of_any_new_file(path: Path) -> None:
    models.save(small(), path)
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


def test_the_file_behind_a_link_is_replaced_and_keeps_its_permissions(path: Path) -> None:
    link, chain = path.parent / "link", path.parent / "chain"
    link.symlink_to(path.name)
    chain.symlink_to(link)
    models.save(small(), chain)  # the file does not exist yet
    assert link.is_symlink()
    assert chain.is_symlink()
    path.chmod(0o600)
    models.save(small(m=12), link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    for each in (path, link, chain):
        assert models.load(each).state_dict()["Lq.weight"].shape == (12, 12)
    assert sorted(os.listdir(path.parent)) == ["chain", "link", path.name]


def test_a_pipe_a_device_or_a_folder_is_neither_read_nor_replaced(path: Path) -> None:
    os.mkfifo(path)
    link = path.parent / "link"
    link.symlink_to(path)
    circle = path.parent / "circle"
    circle.symlink_to(circle)
    for each in (path, link, circle, path.parent, Path("/dev/null")):
        with pytest.raises(CircuitError, match="is not a file but a folder"):
            models.load(each)
        with pytest.raises(CircuitError, match=r"models\.save: .* is not a file but"):
            models.save(small(), each)
    assert path.is_fifo()


def test_a_folder_or_an_index_of_shards_is_named(path: Path) -> None:
    index = path.parent / "model.safetensors.index.json"
    index.write_text("{}")
    for each, what in ((path.parent, "a folder"), (index, "an index of several")):
        with pytest.raises(
            CircuitError, match=f"but {what}; models.load reads one file, which models.save wrote; from_hug"
        ):
            models.load(each)


def test_a_file_cannot_ask_for_more_layers_than_it_has_tensors_for(path: Path) -> None:
    model = models.LanguageModel(8, m=4, k=2, h=2, f=8, depth=1)
    models.save(model, path)
    written = json.loads(metadata(path)["models.arguments"])
    rewritten(path, arguments=json.dumps({**written, "kwargs": {**written["kwargs"], "depth": 10**9}}))
    began = time.monotonic()
    with pytest.raises(CircuitError, match=r"a LanguageModel cannot be made with .* many more tensors than the"):
        models.load(path)
    assert time.monotonic() - began < 10
    rewritten(path, arguments=json.dumps(written))
    assert models.load(path).state_dict().keys() == model.state_dict().keys()


@pytest.mark.slow
def test_the_time_to_load_a_file_grows_with_its_size(path: Path) -> None:
    """A tie costs torch a comparison with the prefix of each module, so there are no more ties than names."""
    models.save(small(), path)
    rewritten(path, tied=json.dumps({f"name{number}": "Lq.weight" for number in range(300_000)}))
    began = time.monotonic()
    with pytest.raises(CircuitError, match="more names are tied, 300000, than a model with its arguments has"):
        models.load(path)
    assert time.monotonic() - began < 5


def test_a_precision_that_is_none_is_refused(path: Path) -> None:
    models.save(small(), path)
    for dtype in ("float16", torch.int64, 16):
        with pytest.raises(CircuitError, match=rf"dtype may be a floating one, .* not {dtype!r}"):
            models.load(path, dtype=dtype)  # type: ignore[arg-type]


# --- What cannot be read ----------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        models.load("nowhere.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_part_of_a_file_is_refused(keep: int, path: Path) -> None:
    models.save(small(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CircuitError, match="is not a complete safetensors file"):
        models.load(path)


def test_a_pickle_is_never_opened(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("it was executed",)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CircuitError, match="is not a complete safetensors file"):
        models.load(path)


def test_a_file_of_torch_save_is_refused_with_the_way_to_read_it(path: Path) -> None:
    path = path.with_suffix(".pt")
    torch.save(small().state_dict(), path)
    with pytest.raises(CircuitError) as caught:
        models.load(path)
    assert "model.load_state_dict(torch.load(path, weights_only=True)) may read: " in str(caught.value)
    small().load_state_dict(torch.load(path, weights_only=True))


def test_the_arguments_of_a_constructor_are_named_where_they_do_not_fit() -> None:
    with pytest.raises(
        TypeError, match=r"^MLP takes \(x=28, .*device=None, dtype=None\): .*unexpected.*'hidden'"
    ) as caught:
        models.MLP(hidden=3)  # type: ignore[call-arg]
    assert isinstance(caught.value, CircuitError)
    assert [each.path for each in caught.traceback] == [Path(__file__)]


def test_a_file_of_others_is_refused_with_the_way_to_read_it(path: Path) -> None:
    save_file(small().state_dict(), path)
    with pytest.raises(CircuitError, match=r"model\.load_state_dict\(safetensors\.torch\.load_file\(path\)\)"):
        models.load(path)


def test_the_module_of_a_file_is_not_imported(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    models.save(small(), path)
    rewritten(path, **{"class": "Net", "module": "trap"})
    with pytest.raises(CircuitError, match="import that module first"):
        models.load(path)


def test_other_files_of_a_training_run_are_refused_with_the_model_to_load(tmp_path: Path) -> None:
    state, record = tmp_path / "state-a.safetensors", tmp_path / "checkpoint.json"
    save_file({"model.weight": torch.ones(1)}, state, {"contents": "training state"})
    record.write_text("{}")
    with pytest.raises(CircuitError, match=r"state of a training run.*; load best\.safetensors or last\.safetensors"):
        models.load(state)
    models.save(small(), tmp_path / "best.safetensors")
    for other, said in ((state, "state of a training run"), (record, "not a complete safe"), (tmp_path, "a folder")):
        with pytest.raises(CircuitError, match=rf"{said}.*; load {tmp_path}/best\.safetensors, the model of this run"):
            models.load(other)


NONE = '{"args": [], "kwargs": {}}'


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "2"}, "has format 2, of a later version of this library; this version reads 1"),
        ({"format": "9" * 5000}, "has format 99999999999999999999, of a later version"),
        ({"arguments": '{"args": [' + "9" * 5000 + '], "kwargs": {}}'}, "not the arguments of a model"),
        ({"tied": '{"other": ' + "9" * 5000 + "}"}, "does not say which of its tensors are tied"),
        ({"format": "one"}, r"was not written by models\.save"),
        ({"class": "os.system"}, "is of a class 'os.system'; it may be of Block, "),
        (
            {"class": "Net", "module": "my.nets"},
            "is of a class 'Net' of the module 'my.nets': import that module first, then load the file",
        ),
        ({"class": "Net", "module": "__main__"}, "is of a class 'Net' of the program that saved it, which must define"),
        ({"class": "Net", "module": "m" * 5000}, "of the module 'm{79}: import that module first"),
        (
            {"class": "Linear"},
            "a Linear cannot be made with .*: .*text",
        ),
        ({"class": ""}, "is of a class ''"),
        ({"arguments": ""}, "a MultiHeadAttention cannot be made"),
        ({"arguments": "["}, "not the arguments of a model"),
        ({"arguments": "[" * 100_000}, "a MultiHeadAttention cannot be made"),
        ({"arguments": "[]"}, "not the arguments of a model"),
        ({"arguments": NONE}, r"missing a required argument: .m."),
        ({"arguments": '{"args": [], "kwargs": {"m": {"torch.nn": "Module"}}}'}, "not the arguments of a model"),
        ({"arguments": '{"args": [], "kwargs": {"m": {"unwritable": "x"}}}'}, "not the arguments of a model"),
        ({"arguments": '{"args": [], "kwargs": {"m": {"models": "os.system"}}}'}, "not the arguments of a model"),
        ({"arguments": '{"args": [6, 3, 4], "kwargs": {"groups": 3}}'}, "4 heads cannot share 3 groups"),
        (
            {"arguments": '{"args": [6, 3, 2], "kwargs": {}}'},
            r"Lq\.weight: \(h k\) m is 6 6 here, 12 6 there",
        ),
        ({"tied": ""}, "does not say which of its tensors are tied"),
        ({"tied": "[]"}, "does not say which of its tensors are tied"),
        ({"tied": '{"other": "nothing"}'}, "does not say which of its tensors are tied"),
        ({"tied": '{"other": ["Lq.weight"]}'}, "does not say which of its tensors are tied"),
        ({"tied": '{"Lk.weight": "Lq.weight"}'}, "does not say which of its tensors are tied"),
        ({"tied": '{"other": "Lq.weight"}'}, "unexpected  other"),
        ({"tied": '{"other": 1}'}, "does not say which of its tensors are tied"),
        ({"arguments": '{"args": [1' + "0" * 18 + ', 3, 4], "kwargs": {}}'}, r"cannot be made with [^\n]*$"),
    ],
)
def test_metadata_that_is_not_ours_is_refused(changes: dict[str, str], said: str, path: Path) -> None:
    models.save(small(), path)
    rewritten(path, **changes)
    with pytest.raises(CircuitError, match=said):
        models.load(path)


def test_a_parameter_of_integers_is_refused(path: Path) -> None:
    model = small()
    models.save(model, path)
    save_file({name: value.long() for name, value in model.state_dict().items()}, path, metadata(path))
    with pytest.raises(CircuitError, match=r"Lk\.weight has dtype torch\.int64, which a parameter cannot have"):
        models.load(path)


@pytest.mark.parametrize(
    "text",
    ['m -> __import__("os").system("x")', "m -> k); import os; (", "m -> {m}", "m -> k\nimport os", "m -> lambda: 0"],
)
def test_a_text_in_a_file_is_never_code(text: str, path: Path) -> None:
    """`Linear` parses its text as a signature, from which code is generated: it accepts names alone."""
    models.save(Linear("m -> k", m=3, k=2), path)
    rewritten(path, arguments=json.dumps({"args": [text], "kwargs": {"m": 3, "k": 2, "bias": True}}))
    with pytest.raises(CircuitError, match="a Linear cannot be made with"):
        models.load(path)


def test_every_class_that_a_file_may_name_is_torchs_own() -> None:
    for name, kind in configuration.TORCH_CLASSES.items():
        assert kind is getattr(nn, name)
        assert issubclass(kind, nn.Module)


# --- State dicts that do not fit --------------------------------------------------------------------------------------


def other_names() -> tuple[nn.Module, dict[str, Any]]:
    """torch's attention joins three linear maps in one, and has another name for the last."""
    model = models.MultiHeadAttention(128, 16, 4)
    return model, {
        "out_proj.weight": torch.zeros(128, 64),
        "Lq.weights": torch.zeros(64, 128),
        "Lk.weight": torch.zeros(64, 128),
        "Lv.weight": torch.zeros(32, 128),
    }


def other_sizes() -> tuple[nn.Module, dict[str, Any]]:
    """Convolutions, norms and a linear map; more than a message lists."""
    channels, others = (4, 8, 12, 16), (4, 8, 16, 16)
    return models.IdentityResNet(1, channels, 3), models.IdentityResNet(1, others, 5).state_dict()


def another_model() -> tuple[nn.Module, dict[str, Any]]:
    return models.UNet(channels=1), models.MLP(2, 2, 2, 2).state_dict()


def wrapped() -> tuple[nn.Module, dict[str, Any]]:
    model = small()
    return model, nn.DataParallel(model).state_dict()


def no_tensors() -> tuple[nn.Module, dict[str, Any]]:
    state: dict[str, Any] = small().state_dict()
    return small(), state | {"Lq.weight": [1.0, 2.0], "Lk.weight": torch.tensor(1.0)}


def untraceable() -> tuple[nn.Module, dict[str, Any]]:
    """A model that cannot be traced: the message has sizes without names."""

    class Odd(models.MLP):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("not today")

    return Odd(2, 2, 4, 3), models.MLP(2, 2, 5, 3).state_dict()


CASES = [other_names, other_sizes, another_model, wrapped, no_tensors, untraceable]


@pytest.mark.every(4)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_does_not_fit_is_listed(case: Callable[[], Any], golden: Callable[[str, str], None]) -> None:
    model, state = case()
    with pytest.raises(models.WeightsError) as caught:
        model.load_state_dict(state)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, CircuitError)
    golden(f"models/weights_{case.__name__}.txt", f"{caught.value}\n")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.vit."])
def test_a_prefix_is_told_whole_and_stripped_if_asked(prefix: str) -> None:
    model, given = small(), small()
    wrapped = {prefix + name: value for name, value in given.state_dict().items()}
    with pytest.raises(models.WeightsError) as caught:
        model.load_state_dict(wrapped)
    (line,) = str(caught.value).splitlines()[1:]
    assert line == (
        f'  every name there begins with "{prefix}"; without it they are the same;'
        f' models.without_prefix(state, "{prefix}") strips it'
    )
    model.load_state_dict(models.without_prefix(wrapped, prefix))
    assert torch.equal(model.Lq.weight, given.Lq.weight)
    with pytest.raises(
        models.WeightsError, match=rf'these names do not begin with "{prefix}":\n  there       Lq.weight'
    ):
        models.without_prefix(given.state_dict(), prefix)
    with pytest.raises(models.WeightsError, match=r'every name there begins with "0\."'):
        model.load_state_dict(nn.Sequential(given).state_dict())


def test_a_prefix_is_stripped_from_the_versions_of_modules_too() -> None:
    """A state dict from before torch 0.4.1 lacks the count of batches, which torch knows by the version of a module."""
    model = models.IdentityResNet(1, (2, 4, 8, 12))
    state = nn.Sequential(nn.Sequential(model)).state_dict()
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
        state._metadata[name.rpartition(".")[0]]["version"] = 1  # pyright: ignore[reportAttributeAccessIssue]
    model.load_state_dict(models.without_prefix(state, "0.0."))


@pytest.mark.slow
def test_all_names_that_torch_lists_are_listed() -> None:
    """torch lists the missing names in one line, the unexpected ones in another."""
    model, state = other_names()
    with pytest.raises(RuntimeError) as theirs:
        nn.Module.load_state_dict(model, state)
    with pytest.raises(models.WeightsError) as ours:
        model.load_state_dict(state)
    for name in ("Lo.weight", "Lq.weight", "out_proj.weight", "Lq.weights", "Lv.weight"):
        assert name in str(theirs.value)
        assert name in str(ours.value)
    assert "Lk.weight" not in str(ours.value)
    assert ours.value.__cause__ is not None


@pytest.mark.slow
def test_axes_of_every_weight_of_a_classifier_have_the_sizes_they_are_said_to() -> None:
    """A name has the same size wherever it occurs; all sizes are different, so that a wrong name is noticed."""
    model = models.MultiHeadAttention(m=11, k=3, h=4, groups=2, bias=True)
    state = {name: torch.zeros(*value.shape, 1) for name, value in model.state_dict().items()}
    with pytest.raises(models.WeightsError) as caught:
        model.load_state_dict(state)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split()[1:] for line in lines] == [
        f"{name}: {axes} is {sizes} here, {sizes} 1 there".split()
        for name, axes, sizes in (
            ("Lq.weight", "(h k) m", "12 11"),
            ("Lq.bias", "(h k)", "12"),
            ("Lk.weight", "(g k) m", "6 11"),
            ("Lk.bias", "(g k)", "6"),
            ("Lv.weight", "(g k) m", "6 11"),
            ("Lv.bias", "(g k)", "6"),
            ("Lo.weight", "m (g n k)", "11 12"),
            ("Lo.bias", "m", "11"),
        )
    ]


def test_the_options_of_torchs_method_remain() -> None:
    model, state = other_names()
    state["Lv.weight"] = torch.zeros(64, 128)
    found = model.load_state_dict(state, strict=False)
    assert sorted(found.missing_keys) == ["Lo.weight", "Lq.weight"]
    assert sorted(found.unexpected_keys) == ["Lq.weights", "out_proj.weight"]
    assert model.get_parameter("Lk.weight").eq(0).all()
    fresh = models.MultiHeadAttention(128, 16, 4, device="meta")
    fresh.load_state_dict(model.state_dict(), assign=True)
    assert fresh.Lq.weight.data_ptr() == model.get_parameter("Lq.weight").data_ptr()
    with pytest.raises(TypeError, match="dict-like"):
        model.load_state_dict([])  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_without_strict_only_axes_are_listed() -> None:
    model, state = other_names()
    with pytest.raises(models.WeightsError) as caught:
        model.load_state_dict(state, strict=False)
    assert str(caught.value).splitlines()[1:] == ["  axes        Lv.weight: (h k) m is 64 128 here, 32 128 there"]


@pytest.mark.slow
def test_axes_are_named_too_if_half_of_a_model_is_on_meta() -> None:
    model, state = other_names()
    with pytest.raises(models.WeightsError, match=r"Lv\.weight: \(h k\) m is 64 128 here, 32 128 there"):
        model.to("meta").load_state_dict(state, assign=True)


def test_an_old_state_dict_without_the_count_of_batches_is_treated_as_torch_does() -> None:
    """A state dict has the versions of its modules: one from before torch 0.4.1 need not have the count."""
    model = models.IdentityResNet(1, (2, 4, 8, 12))
    state = model.state_dict()
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
        state._metadata[name.rpartition(".")[0]]["version"] = 1  # pyright: ignore[reportAttributeAccessIssue]
    model.load_state_dict(state)
    del state["linear.bias"]
    with pytest.raises(models.WeightsError) as caught:
        model.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == ["  missing     linear.bias"]


def test_an_error_of_another_kind_is_not_changed() -> None:
    model = small()

    def refuse(*_: Any) -> None:
        raise RuntimeError("not today")

    model.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(RuntimeError, match="not today") as caught:
        model.load_state_dict(model.state_dict())
    assert not isinstance(caught.value, CircuitError)


def test_a_subclass_explains_too() -> None:
    class Twice(models.MLP):
        pass

    marked = models.savable(Twice)
    try:
        with pytest.raises(models.WeightsError, match="Twice cannot take these weights") as caught:
            marked(2, 2, 2, 2).load_state_dict(models.MLP(2, 2, 3, 2).state_dict())
    finally:
        del CLASSES["Twice"]
    assert type(caught.value.__cause__) is RuntimeError
