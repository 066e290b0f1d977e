"""Hand formulas of small circuits, and errors planted in `circuits.cost`, each of which breaks one of them."""

import pytest

from tests.cost.claims import CLAIMS


@pytest.mark.parametrize("name", CLAIMS)
def test_cost_is_the_hand_formula(name: str) -> None:
    CLAIMS[name].check()
