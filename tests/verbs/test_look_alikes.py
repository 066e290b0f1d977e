"""An axis of an einsum that one tensor alone has is warned of beside one that looks alike; ordinary einsums are not."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits import CircuitWarning, circuit, einsum
from circuits.signature import Signature
from circuits.verbs.look_alikes import warn_of_look_alikes

ORDINARY = """
    y m, x m -> y x
    b h q d, b h k d -> b h q k
    ... q_len d, ... k_len d -> ... q_len k_len
    b q_len d, b k_len d -> b d
    b q_len d, b k_len e -> b d e
    b d_in, d_out -> b
    b x_pos, b y_pos -> b
    batch time channel, channel out -> batch time out
    batch width, batch width' -> batch
    h1, h2 ->
    axis1, axis2 ->
    layer_1 k, layer_2 k -> k
    rowa c, rowb c -> c
    xdim, ydim ->
    head_q, head_k ->
    head heads -> head
    token tokens, token -> token
    batch in_dim, out_dim -> batch
    query dim, key dim -> query key
    query, query' ->
    width, height ->
    input, output ->
    source, target ->
    channel -> channel
    bin, pin ->
    in_dim b, in_dim out -> b out
    in_dim, in_dimm -> in_dim in_dimm
    left, right, left right -> left
    row column, column -> row
    time, times' ->
    in_features, hidden_features ->
    sent_q, sent_k ->
    feature_x, feature_y ->
    alpha beta, gamma delta -> alpha
    \u03b1\u03b2\u03b3\u03b4, \u03b1\u03b2\u03b3\u03b5 ->
"""


@pytest.mark.parametrize("text", [line.strip() for line in ORDINARY.strip().splitlines()])
def test_an_ordinary_einsum_is_not_warned_of(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_look_alikes(Signature.parse(text))


MISSPELT = {
    "b in_dim, in_dimm out -> b out": "einsum sums over in_dim and over in_dimm, each in one tensor only",
    "b in_dim, in_dim out, in_dimm -> b out": "einsum sums over in_dimm, which only one tensor has: is it in_dim?",
    "b chanenl, channel out -> b out": "over chanenl and over channel",
    "b channel, chanel out -> b out": "over channel and over chanel",
    "b in_dim, indim out -> b out": "over in_dim and over indim",
    "b token, tokens c -> b c": "over token and over tokens",
    "b hidden, Hidden c -> b c": "over hidden and over Hidden",
    "b hidden, hiden c, hidden -> b c": "over hiden, which only one tensor has: is it hidden?",
    "batch m, bacth -> batch m": "over bacth, which only one tensor has: is it batch?",
    "b width, wedth c -> b c": "over width and over wedth",
    "b d_in, d_inn c -> b c": "over d_in and over d_inn",
}


@pytest.mark.parametrize("text", MISSPELT)
def test_a_misspelt_axis_is_warned_of_once(text: str) -> None:
    with pytest.warns(CircuitWarning) as seen:
        warn_of_look_alikes(Signature.parse(text))
    assert len(seen) == 1
    assert MISSPELT[text] in str(seen[0].message)


USE = """
import torch
from circuits import einsum

def project(x, weight):
    return einsum(x, weight, "b in_dim, in_dimm out -> b out")

for _ in range(3):
    project(torch.ones(2, 3), torch.ones(3, 4))
"""


@pytest.mark.slow
def test_the_warning_is_given_at_the_users_line_and_once(golden: Any, tmp_path: Path) -> None:
    file = tmp_path / "project.py"
    file.write_text(USE, encoding="utf-8")
    run = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True)
    golden("verbs/look_alike.txt", run.stderr.replace(f"{tmp_path}/", ""))


def test_under_compile_it_is_no_graph_break_and_comes_as_it_is_compiled() -> None:
    compiled = torch.compile(
        lambda x, w: einsum(x, w, "b compiled_in, compiled_inn out -> b out"), backend="eager", fullgraph=True
    )
    with pytest.warns(CircuitWarning, match="compiled_inn"):
        found = compiled(torch.ones(2, 3), torch.ones(3, 4))
    assert torch.equal(found, torch.full((2, 4), 9.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(torch.ones(2, 3), torch.ones(3, 4))


def test_the_signature_of_a_circuit_may_have_names_that_look_alike() -> None:
    """Its checks would find a misspelt axis, whose size is then free."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        circuit("b in_dim, in_dimm out -> b out")(lambda x, w: x @ w)(torch.ones(2, 3), torch.ones(3, 4))
