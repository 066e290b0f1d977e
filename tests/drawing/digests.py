"""Numbers for the bytes of drawings, to compare processes: `python -m tests.drawing.digests mlp,attention`.

Only small subjects are named here, so that a process starts quickly.
"""

import hashlib
import random
import sys
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import nn

from circuits import Diagram, backward, draw, trace
from models.attention import MultiHeadAttention
from models.mlp import MLP
from models.scaled_dot_product import attention
from models.visual_attention import VisualAttention
from tests.diagram.programs import KINDS, Program


def random_program(case: int) -> Diagram:
    """Return the diagram of a random program of operations without state."""
    chosen = random.Random(case)
    plan = [(chosen.choice(list(KINDS["pure"])), chosen.randrange(9), chosen.randrange(9)) for _ in range(5)]
    given = (torch.ones(3, 4), torch.ones(3, 4), {"y": torch.zeros(3, 4), "list": []})
    return trace(Program(plan, 4), *given)


SUBJECTS: dict[str, Callable[[], Diagram]] = {
    "attention": lambda: trace(MultiHeadAttention(m=8, k=4, h=2)),
    "gradient": lambda: backward(attention),
    "layers": lambda: trace(nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(4)]), axes="b 4"),
    "mlp": lambda: trace(MLP(x=5, y=7, m=11, k=3)),
    "program": lambda: random_program(3),
    "visual attention": lambda: trace(VisualAttention(c=3, k=5, heads=2, kernel=3, stride=2)),
}
"""What is drawn."""


@cache
def diagram(name: str) -> Diagram:
    """Return the diagram of a subject."""
    return SUBJECTS[name]()


def digests(names: Sequence[str]) -> str:
    """Return a number for all bytes of the drawings of each subject, drawn in this order and sorted by name."""
    found = {}
    for name in names:
        subject = diagram(name)
        drawings = [draw(subject), draw(subject, depth=1, wires="tensors")]
        drawings.append(draw(subject, order="w h ... b", pairs="h w", width="column"))
        texts = [text for each in drawings for text in (each.svg, each.tikz, each.text(80))]
        found[name] = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    return " ".join([f"{name}={found[name]}" for name in sorted(found)])


if __name__ == "__main__":
    print(digests(sys.argv[1].split(",")))
