"""`circuits.models` and `models` are one set of modules, and another project's `models` is left to that project."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDERS = {
    "models first": "import models, circuits.models",
    "circuits.models first": "import circuits.models, models",
    "a file first": "import models.parts.masks, circuits.models",
    "a file of circuits.models first": "import circuits.models.parts.masks, models",
}
SAME = """
import sys
from pathlib import Path
import torch, models.layers, circuits.models.layers
found = {name: each for name, each in sys.modules.items() if name.partition(".")[0] == "models"}
assert models is circuits.models and models.layers is circuits.models.layers
assert all(each is sys.modules[f"circuits.{name}"] for name, each in found.items())
folder = Path(models.__file__).parent
files = {path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py")}
assert {".".join(path.parts).removesuffix(".__init__") for path in files} <= found.keys()
assert models.MLP.__module__ == "circuits.models.mlp"
"""
THEIRS = """
import circuits.models
from circuits.models import MLP, MultiHeadAttention
import circuits.models.parts.masks
import models
assert models.ours == 1 and not hasattr(models, "MLP")
assert circuits.models.__file__ == {file!r}, circuits.models.__file__
MLP(x=2, y=2, m=4, k=2)
"""


def python(code: str, *path: Path, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, with these folders first on the path and without this checkout's."""
    setup = f"import sys; sys.path[:] = [{', '.join(repr(str(each)) for each in path)}, *sys.path]\n"
    return subprocess.run([sys.executable, "-c", setup + code], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of a project that has a package `models`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("ours = 1")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_both_names_have_the_same_modules(name: str) -> None:
    result = python(f"{ORDERS[name]}\n{SAME}", ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_project_with_a_folder_models_keeps_it(project: Path) -> None:
    result = python(THEIRS.format(file=str(ROOT / "models" / "__init__.py")), project, ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_project_with_a_file_models_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("ours = 1")
    result = python(THEIRS.format(file=str(ROOT / "models" / "__init__.py")), tmp_path, ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_an_installed_copy_is_found_beside_its_circuits(project: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    for package in ("circuits", "models"):
        shutil.copytree(ROOT / package, installed / package, ignore=shutil.ignore_patterns("__pycache__"))
    result = python(THEIRS.format(file=str(installed / "models" / "__init__.py")), project, installed)
    assert result.returncode == 0, result.stderr
    result = python(f"{SAME}\nassert models.__file__.startswith({str(installed)!r})", installed)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("written", ["models", "circuits.models"])
def test_pickles_and_files_of_either_name_are_read_in_any_project(written: str, project: Path, tmp_path: Path) -> None:
    code = f"""
import pickle, torch, {written} as zoo
torch.manual_seed(0)
model = zoo.MLP(x=2, y=2, m=4, k=2)
zoo.save(model, "model.safetensors")
open("model.pickle", "wb").write(pickle.dumps((model, zoo.WeightsError)))
"""
    read = """
import pickle, torch
import circuits.models as zoo
model, error = pickle.load(open("model.pickle", "rb"))
assert error is zoo.WeightsError and type(model) is zoo.MLP
again, x = zoo.load("model.safetensors"), torch.rand(3, 2, 2)
assert type(again) is zoo.MLP and torch.equal(again(x), model(x))
"""
    for result in (python(code, ROOT, cwd=tmp_path), python(read, project, ROOT, cwd=tmp_path)):
        assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_pickles_of_the_name_models_are_read() -> None:
    """Files that were written when the modules themselves were called `models`."""
    result = python("import pickle; print(pickle.loads(b'cmodels.attention\\nMultiHeadAttention\\n.'))", ROOT)
    assert "circuits.models.attention.MultiHeadAttention" in result.stdout, result.stderr


@pytest.mark.slow
def test_pyright_finds_the_models_in_any_project(project: Path) -> None:
    code = """
import models
from circuits.models import MultiHeadAttention, load

reveal_type(models.ours)
reveal_type(MultiHeadAttention(m=8, k=2, h=4))
reveal_type(load("file"))
"""
    (project / "use.py").write_text(code)
    venv = f'"venvPath": "{Path(sys.prefix).parent}", "venv": "{Path(sys.prefix).name}"'
    (project / "pyrightconfig.json").write_text(f'{{{venv}, "extraPaths": ["{ROOT}"]}}')
    result = subprocess.run([sys.executable, "-m", "pyright", "use.py"], cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    for found in ('"models.ours" is "int"', 'h=4)" is "MultiHeadAttention"', 'load("file")" is "Any"'):
        assert found in result.stdout


# --- another distribution of the same name ----------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["circuits.py", "circuits/__init__.py"])
def test_models_beside_another_circuits_says_so(file: str, tmp_path: Path) -> None:
    (tmp_path / "circuits").mkdir()
    (tmp_path / file).write_text("")
    shutil.copytree(ROOT / "models", tmp_path / "models")
    result = python("import models", tmp_path)
    assert result.returncode == 1
    assert "uninstall that, then install neural-circuit-diagrams again" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_circuits_in_one_folder_with_another_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "circuits", tmp_path / "circuits")
    (tmp_path / "circuits" / "core").mkdir()
    result = python("import circuits; circuits.circuit('a b')", tmp_path)
    assert result.returncode == 0
    assert "another distribution, `circuits`, is installed" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text"), [("", "is missing"), ("models/__init__.py", "another distribution has put its own models")]
)
def test_circuits_without_its_models_says_so(file: str, text: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "circuits", tmp_path / "circuits")
    if file:
        (tmp_path / "models").mkdir()
        (tmp_path / file).write_text("")
    result = python("import circuits; import circuits.models", tmp_path)
    assert result.returncode == 1
    assert text in result.stderr.splitlines()[-1]
