"""`Diagram.run(..., parameters=...)`: parameters and buffers are replaced everywhere, like `functional_call`."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from circuits import CircuitError, circuit, trace


class Wholes(nn.Module):
    """Three parts that a diagram runs as a whole, one of which shares a parameter with the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
        self.hooked = nn.Linear(3, 3)
        self.hooked.weight = self.layer.weight
        self.hooked.register_full_backward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:
        return self.hooked(self.mapped(self.scripted(self.layer(x))))

    @circuit("b i -> b i")
    def mapped(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda row: self.layer.weight @ row)(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_in_parts_that_run_as_a_whole() -> None:
    torch.manual_seed(0)
    model, x = Wholes().eval(), torch.rand(4, 3)
    diagram, before = trace(model, x), model(x)
    new = {
        name: torch.rand_like(each) for name, each in (*model.named_parameters(), *model.named_buffers()) if each.ndim
    }
    for name in new:
        expected = functional_call(model, {name: new[name]}, (x,))
        assert not torch.equal(expected, before)
        assert torch.equal(diagram.run((x,), {}, {name: new[name]}), expected)
    assert torch.equal(diagram.run((x,), {}, new), functional_call(model, new, (x,)))
    assert torch.equal(diagram(x), before)


def test_in_a_module_that_is_the_whole_diagram() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    x, mask = torch.rand(2, 3, 4), torch.tensor([[False] * 3, [False, False, True]])
    diagram = trace(model, x, x, x, mask)
    assert diagram.box.call is not None
    new = {name: torch.rand_like(each) for name, each in model.named_parameters()}
    found, expected = diagram.run((x, x, x, mask), {}, new), functional_call(model, new, (x, x, x, mask))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(CircuitError, match="no parameter or buffer bias"):
        diagram.run((x, x, x, mask), {}, {"bias": new["out_proj.bias"]})
