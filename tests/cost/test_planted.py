"""Errors planted in `circuits.cost`, one at a time: each breaks a claim that holds without it."""

import importlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from circuits.cost import boundary, contractions, groups, measure, memory, meter, sizes
from circuits.cost.box_cost import BoxCost, Held
from tests.cost.claims import CLAIMS

count_module = importlib.import_module("circuits.cost.count")
Plant = Callable[[pytest.MonkeyPatch], None]


def replaced(name: str, formula: Callable[..., Any]) -> Plant:
    """Another formula for the multiply-adds of an operation."""
    return lambda patch: patch.setitem(contractions.FORMULAS, name, formula)


def removed(name: str) -> Plant:
    return lambda patch: patch.delitem(contractions.FORMULAS, name)


def scaled(name: str, factor: float) -> Plant:
    before = contractions.FORMULAS[name]
    return replaced(name, lambda given, out: before(given, out) * factor)


def _double_matmul(patch: pytest.MonkeyPatch) -> None:
    by_torch = contractions.flops_by_torch

    def doubled(*given: Any) -> Any:
        found = by_torch(*given)
        return None if found is None else found * 2

    patch.setattr(meter, "flops_by_torch", doubled)


def _no_matmul(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(meter, "flops_by_torch", lambda *given: None)


def _a_gradient_for_each_group(given: dict[str, Any], out: Any) -> Any:
    """What torch's formula says: the gradient of the weight once for each group."""
    return contractions._convolution_backward(given, out) * (1 + given["groups"]) / 2


def _pairs_the_other_way(patch: pytest.MonkeyPatch) -> None:
    before = contractions.pairs
    patch.setattr(meter, "pairs", lambda given: before({**given, "query": given["key"], "key": given["query"]}))


def _dense_for_causal(patch: pytest.MonkeyPatch) -> None:
    before = contractions.pairs
    patch.setattr(meter, "pairs", lambda given: (before(given)[0],) * 2)


def _causal_for_dense(patch: pytest.MonkeyPatch) -> None:
    before = contractions.pairs
    patch.setattr(contractions, "pairs", lambda given: (before({**given, "is_causal": True})[1],) * 2)


def _heads_of_the_keys(given: dict[str, Any], out: Any) -> Any:
    return contractions._attention({**given, "query": [*given["key"][:-2], *given["query"][-2:]]}, out)


def _held(change: Callable[[Held], Held | None]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        before = count_module._StateTensors._held
        patch.setattr(count_module._StateTensors, "_held", lambda self, value: change(before(self, value)))

    return plant


def _once_for_each_use(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Held, "key", property(id))


def _no_bias(held: Held) -> Held:
    return replace(held, elements=0) if held.name.endswith("bias") else held


def _views_are_copies(patch: pytest.MonkeyPatch) -> None:
    for module in (memory, meter, measure):
        patch.setattr(module, "key", id)


def _views_write(patch: pytest.MonkeyPatch) -> None:
    before = meter._written
    patch.setattr(meter, "_written", lambda func, args, kwargs: before(func, args, kwargs) or meter._tensors(args)[:1])


def _no_products_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(contractions, "_functional", lambda packet: packet)


def _as(which: str | None) -> Plant:
    return lambda patch: patch.setattr(meter, "computes", lambda func: which)


def _never(module: Any, name: str) -> Plant:
    return lambda patch: patch.setattr(module, name, lambda *given: False)


def _unsaved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(measure.Measurement, "_note_saved", lambda self: None)


def _recompute_ignored(patch: pytest.MonkeyPatch) -> None:
    before = count_module.forward_backward
    patch.setattr(count_module, "forward_backward", lambda diagram, recompute, wrt: before(diagram, wrt=wrt))


def _forward_only(patch: pytest.MonkeyPatch) -> None:
    before = count_module.both_passes

    def without(*given: Any) -> Any:
        diagram, saved = before(*given)
        return replace(diagram, box=replace(diagram.box, boxes=diagram.box.boxes[:1])), saved

    _unsaved(patch)
    patch.setattr(count_module, "both_passes", without)


def _first_candidate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sizes.Largest, "size", property(lambda self: sizes.size_of(self.candidates[0])))


def _never_freed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory.Memory, "_remove", lambda self, number, size: self._known.pop(number))


def _expanded_in_full(patch: pytest.MonkeyPatch) -> None:
    def bytes_of(self: meter.Meter, tensor: Tensor) -> Any:
        return sizes.simplified(self._numel(tensor) * tensor.dtype.itemsize)

    patch.setattr(meter.Meter, "_bytes_of", bytes_of)


def _four_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(meter.Meter, "_bytes_of", lambda self, tensor: self._numel(tensor) * 4)


def _flops_are_multiply_adds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BoxCost, "flops", property(lambda self: self.multiply_adds))


def _one_box_forgotten(patch: pytest.MonkeyPatch) -> None:
    before = groups.added
    patch.setattr(count_module, "added", lambda row, parts, calls: before(row, parts[:-1], calls))


def _nothing_inside(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(boundary.Boundary, "make", lambda self, storage, written: None)


def _reads_add_up(patch: pytest.MonkeyPatch) -> None:
    """The bytes of a tensor that is read several times, several times."""
    before = boundary.Boundary.read
    numbers = itertools.count(1)

    def read(self: boundary.Boundary, storage: int, size: Any) -> None:
        if storage not in self._inside:
            before(self, -next(numbers), size)

    patch.setattr(boundary.Boundary, "read", read)


def _not_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(boundary.Boundary, "change", lambda self, storage, size: None)


def _read_all_the_same(patch: pytest.MonkeyPatch) -> None:
    before = boundary.Boundary.change

    def change(self: boundary.Boundary, storage: int, size: Any) -> None:
        before(self, storage, size)
        self._inside.discard(storage)

    patch.setattr(boundary.Boundary, "change", change)


def _all_results_are_written(patch: pytest.MonkeyPatch) -> None:
    before = boundary.Boundary.make
    patch.setattr(boundary.Boundary, "make", lambda self, storage, written: before(self, storage, True))


PLANTED: dict[str, tuple[Plant, str]] = {
    "a factor 2": (_double_matmul, "attention"),
    "products without a formula": (_no_matmul, "linear"),
    "FLOPs that are multiply-adds": (_flops_are_multiply_adds, "attention"),
    "fused attention without a formula": (removed("_scaled_dot_product_flash_attention_for_cpu"), "kernel"),
    "scores without the mixture": (scaled("_scaled_dot_product_flash_attention_for_cpu", 0.5), "kernel"),
    "heads of the keys": (
        replaced("_scaled_dot_product_flash_attention_for_cpu", _heads_of_the_keys), "kernel, grouped heads"
    ),
    "the reverse pass is twice the forward pass": (
        scaled("_scaled_dot_product_flash_attention_for_cpu_backward", 0.8), "kernel's reverse pass"
    ),
    "dense for causal": (_dense_for_causal, "kernel, causal"),
    "causal for dense": (_causal_for_dense, "kernel"),
    "queries and keys of a causal mask exchanged": (_pairs_the_other_way, "kernel, causal"),
    "torch's reverse of a grouped convolution": (
        replaced("convolution_backward", _a_gradient_for_each_group), "reverse convolution"
    ),
    "one gradient of two": (scaled("convolution_backward", 0.5), "reverse transposed convolution"),
    "a wrong group": (scaled("_grouped_mm", 4), "grouped products"),
    "a matrix and a vector without a formula": (removed("mv"), "matrix and vector"),
    "vectors without a formula": (removed("dot"), "vectors"),
    "sums of products without a formula": (removed("addbmm"), "addbmm"),
    "only one of two products": (
        replaced("_trilinear", lambda given, out: out[0] * out[1] * given["i1"][-2] * given["i3"][-1]), "bilinear"
    ),
    "distances by their definition": (
        replaced("_euclidean_dist", lambda given, out: out[0] * out[1] * given["x1"][-1]), "far points"
    ),
    "no state in an LSTM": (scaled("mkldnn_rnn_layer", 0.5), "lstm"),
    "a shared weight counted twice": (_once_for_each_use, "shared and frozen weights"),
    "a missing bias": (_held(_no_bias), "linear"),
    "frozen weights counted as trained": (
        _held(lambda held: replace(held, role="trained") if held.role == "frozen" else held),
        "shared and frozen weights",
    ),
    "buffers counted as parameters": (
        _held(lambda held: replace(held, role="trained") if held.role == "buffer" else held),
        "shared and frozen weights",
    ),
    "views counted as copies": (_views_are_copies, "views"),
    "memory that is never freed": (_never_freed, "in place and later"),
    "in-place views counted as writes": (_views_write, "views in place"),
    "a result that is given is read": (_never(meter, "only_overwrites"), "result given"),
    "only the first of a list": (_never(meter, "is_of_lists"), "lists"),
    "no formula for products in place": (_no_products_in_place, "products in place"),
    "pointwise operations move": (_as(""), "in place"),
    "reductions count what they write": (_as("written"), "sum"),
    "unknown operations are silent": (_as(""), "unknown"),
    "expanded axes read in full": (_expanded_in_full, "expanded"),
    "four bytes for every dtype": (_four_bytes, "casts"),
    "a look-up reads the table": (_never(meter, "looks_up"), "look-up"),
    "nothing is saved": (_unsaved, "attention and its reverse pass"),
    "recompute ignored": (_recompute_ignored, "attention, scores recomputed"),
    "the forward pass alone": (_forward_only, "attention and its reverse pass"),
    "the first of several peaks": (_first_candidate, "largest, other sizes"),
    "a box left out of its circuit": (_one_box_forgotten, "attention"),
    "what is made inside a box is read from outside": (_nothing_inside, "attention"),
    "inputs cross a boundary as often as they are read": (_reads_add_up, "an input read twice"),
    "a shared weight crosses a boundary twice": (_reads_add_up, "shared and frozen weights"),
    "an input that is written to is not written": (_not_written, "an input in place"),
    "an input that is overwritten is read": (_read_all_the_same, "an input overwritten"),
    "memory that is not written crosses a boundary": (_all_results_are_written, "memory that is not written"),
    "windows have each element once": (
        lambda patch: patch.setattr(meter, "_WINDOWS", ()), "windows that overlap"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_breaks_its_claim(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, claim = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        CLAIMS[claim].check()


def test_every_planted_error_is_of_a_claim() -> None:
    assert {claim for _, claim in PLANTED.values()} <= set(CLAIMS)
