"""Published training tables of Llama 3 beside the estimates: no run is faster than the bound, and memory is near."""

import pytest

from scripts.benches.published import PUBLISHED, compared


@pytest.mark.slow
@pytest.mark.parametrize("published", PUBLISHED, ids=[each.name for each in PUBLISHED])
def test_published_runs_take_no_less_time_and_about_this_memory(published: object) -> None:
    found = compared(published)  # type: ignore[arg-type]
    assert 0.2 < found.published.tokens / found.tokens < 0.5
    if found.published.memory is not None:
        assert 0.78 < found.memory / found.published.memory < 0.9
