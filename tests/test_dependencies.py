"""The library runs with no more than `pip install .` installs: its declared dependencies and what these need."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

USE = """
import importlib.util, sys, tempfile
sys.path[1:1] = sys.argv[1:]
assert not any(importlib.util.find_spec(name) for name in ("matplotlib", "sklearn", "pytest"))
import torch, models
from circuits import backward, laws, listing, trace, track

model, data = models.MLP(x=2, y=2, m=4, k=3), torch.rand(5, 2, 2)
with tempfile.TemporaryDirectory() as folder:
    models.save(model, f"{folder}/model.safetensors")
    assert torch.equal(models.load(f"{folder}/model.safetensors")(data), model(data))
with track(model, to=None) as seen:
    assert torch.equal(trace(model, data)(data), model(data))
assert str(seen.diagram) and listing(backward(model, data))
laws.independent(model, "...")
assert "typer" not in sys.modules

from circuits.commands import app
app(["draw", "circuits.models.mlp:MLP", "x=2", "y=2"], standalone_mode=False)
"""


def needed() -> set[str]:
    """The names of the declared dependencies and of what these need here, with the extras that they ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pending = [(Requirement(line), "") for line in project["dependencies"]]
    found: set[tuple[str, str]] = set()
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras} - {extra for name, extra in found if name == requirement.name}:
            found.add((requirement.name, wanted))
            try:
                lines = distribution(requirement.name).requires or []
            except PackageNotFoundError:  # what only another build of torch needs
                continue
            pending += [(Requirement(line), wanted) for line in lines]
    return {canonicalize_name(name) for name, _ in found}


@pytest.mark.slow
def test_the_declared_dependencies_are_enough(tmp_path: Path) -> None:
    """In a folder that has links to them, and without site-packages."""
    for name in needed():
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = tmp_path / top
            if not link.exists():
                link.symlink_to(Path(str(distribution(name).locate_file(top))).resolve())
    command = [sys.executable, "-S", "-c", USE, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
