"""The layout of the project: the direction of imports, what each folder offers, and the wheel."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest

import circuits
from tests.conftest import pytest_collection_modifyitems

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("package", ["circuits", "models"])
def test_import_from_elsewhere_finds_this_repository(package: str) -> None:
    result = run(sys.executable, "-c", f"import {package}; print({package}.__file__)", cwd=Path("/"))
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(ROOT), f"{package} comes from {result.stdout.strip()}"


def test_version_is_the_same_everywhere() -> None:
    assert version(PROJECT["name"]) == circuits.__version__
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest[1] == circuits.__version__


def test_license_is_stated_and_shipped() -> None:
    assert metadata(PROJECT["name"])["License-Expression"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_wheel_holds_the_two_packages_typed_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT]
    built = run(*command)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"circuits/__init__.py", "circuits/py.typed", "models/__init__.py", "models/py.typed"} <= set(names)
    dist_info = f"{PROJECT['name'].replace('-', '_')}-{circuits.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"circuits", "models", dist_info}


# --- floors -----------------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command as f; f(['--no-logo', '--no-cache'])"
    return run(sys.executable, "-c", program, cwd=folder)


@pytest.mark.smoke
def test_imports_go_down() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "refusal"),
    [
        ("circuits/errors.py", "import circuits.signature", "errors is not allowed to import circuits.signature"),
        ("circuits/naming/axes.py", "import circuits.recording", "naming is not allowed to import circuits.recording"),
        ("circuits/naming/axes.py", "import circuits.naming.matching", "- .axes -> .matching"),
        ("models/parts/masks.py", "import models.attention", "parts is not allowed to import models.attention"),
        ("circuits/errors.py", "import models", "circuits is not allowed to import models"),
        ("models/__init__.py", "import circuits.errors", "models is not allowed to import circuits.errors"),
        ("models/__init__.py", "import scripts", "models is not allowed to import scripts"),
        ("circuits/newcomer.py", "import circuits.errors", "- circuits.newcomer"),
        ("models/newcomer.py", "import circuits", "- models.newcomer"),
    ],
)
def test_an_import_that_goes_up_is_refused(file: str, line: str, refusal: str, tmp_path: Path) -> None:
    for package in ("circuits", "models", "scripts"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert refusal in result.stdout


def imports(path: Path) -> list[tuple[str, str]]:
    """Every (module, name) that a file imports by `from module import name`."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return [(node.module or "", name.name) for node in found for name in node.names]


FOLDERS = sorted(path.name for path in (ROOT / "circuits").iterdir() if (path / "__init__.py").exists())


@cache
def crossing() -> list[tuple[Path, str, str]]:
    """Return the imports of one folder from another: (file, module, name).

    `circuits/__init__.py` imports functions for type checkers from the files that are called so: mypy takes the name in
    the folder's `__init__` for that file. These count as imports from the folder.
    """
    face = ROOT / "circuits" / "__init__.py"
    return [
        (path, ".".join(module.split(".")[:2]) if path == face and module.endswith(f".{name}") else module, name)
        for path in sorted((ROOT / "circuits").rglob("*.py"))
        for module, name in imports(path)
        if module.startswith("circuits.") and module.split(".")[1] in FOLDERS
        if module.split(".")[1] != path.relative_to(ROOT / "circuits").parts[0]
    ]


def test_folders_import_from_each_other_by_their_init() -> None:
    deep = [f"{path.relative_to(ROOT)}: {module}" for path, module, _ in crossing() if module.count(".") > 1]
    assert crossing()
    assert not deep


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_is_and_offers_what_others_use(folder: str) -> None:
    tree = ast.parse((ROOT / "circuits" / folder / "__init__.py").read_text())
    assert re.search(r"\b(start with|in order|in the order)\b", ast.get_docstring(tree) or "", re.IGNORECASE)
    offered = {name for node in tree.body if isinstance(node, ast.Assign) for name in ast.literal_eval(node.value)}
    used = {name for _, module, name in crossing() if module == f"circuits.{folder}"}
    assert offered
    assert folder == "laws" or offered <= used, (
        f"nothing uses {offered - used}"
    )  # users call laws, other folders do not


def test_every_folder_has_a_smoke_test() -> None:
    """`pytest -m smoke` runs a few tests of each folder, of the models and of the scripts."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "@pytest.mark.smoke" in path.read_text("utf-8")]
    marked = {path.parent.name for path in files}
    assert {*FOLDERS, "models", "scripts"} <= marked


@pytest.mark.parametrize(
    ("marks", "kinds"),
    [
        ((pytest.mark.every(3),), "default slow slow default slow slow default"),
        ((pytest.mark.every(3, 3), pytest.mark.slow), "slow survey survey slow survey survey slow"),
        ((pytest.mark.every(3), pytest.mark.slow), " ".join(["slow"] * 7)),
        ((pytest.mark.every(3, 2),), "default slow survey default slow survey default"),
        ((pytest.mark.every(2, 3),), "default slow default survey default survey default"),
        ((pytest.mark.every(3), pytest.mark.smoke), " ".join(["default"] * 7)),
        ((pytest.mark.slow,), " ".join(["slow"] * 7)),
    ],
)
def test_every_leaves_cases_to_slower_runs(marks: tuple[Any, ...], kinds: str, request: Any) -> None:
    items: list[pytest.Item] = [
        pytest.Function.from_parent(request.node.parent, name="case", callobj=lambda: None) for _ in range(7)
    ]
    for item in items:
        item.own_markers[:] = [mark.mark for mark in marks]
    pytest_collection_modifyitems(items)
    named = [[name for name in ("survey", "slow") if item.get_closest_marker(name)] for item in items]
    assert [(names or ["default"])[0] for names in named] == kinds.split()


def test_no_file_hides_a_public_function() -> None:
    """A module `circuits.trace` would become the attribute `trace` of `circuits` in place of the function."""
    functions = {name for name in circuits.__all__ if not inspect.ismodule(getattr(circuits, name))}
    assert not functions & {path.stem for path in (ROOT / "circuits").iterdir()}


# --- sizes ------------------------------------------------------------------------------------------------------------


def code_lines(node: ast.AST, lines: list[str]) -> int:
    """The lines of a function or class without its docstring, blank lines and comments."""
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    skipped = range(first.lineno, (first.end_lineno or 0) + 1) if documented else range(0)
    numbers = [number for number in range(node.lineno, (node.end_lineno or 0) + 1) if number not in skipped]
    return len([number for number in numbers if lines[number - 1].strip() and lines[number - 1].strip()[0] != "#"])


def test_files_classes_and_functions_stay_small() -> None:
    """A file has at most 300 lines, a class 200, a function 40 of code: what is larger has more than one subject."""
    large = []
    for path in [path for folder in ("circuits", "models", "scripts") for path in (ROOT / folder).rglob("*.py")]:
        lines, name = path.read_text().splitlines(), path.relative_to(ROOT)
        large += [f"{name}: {len(lines)} lines"] if len(lines) > 300 else []
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno + 1 > 200:
                large.append(f"{name}: class {node.name}, {(node.end_lineno or 0) - node.lineno + 1} lines")
            if isinstance(node, ast.FunctionDef) and code_lines(node, lines) > 40:
                large.append(f"{name}: function {node.name}, {code_lines(node, lines)} lines of code")
    assert not large, "\n".join(large)
