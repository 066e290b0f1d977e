"""The layout of the project: the direction of imports, what each folder offers, the wheel, and scripts/env."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import metadata, version
from pathlib import Path
from types import MappingProxyType

import pytest

import circuits

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(
    *command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True)


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("package", ["circuits", "models"])
def test_import_from_elsewhere_finds_this_repository(package: str) -> None:
    answer = run(sys.executable, "-c", f"import {package}; print({package}.__file__)", cwd=Path("/"))
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.strip()).is_relative_to(ROOT), f"{package} comes from {answer.stdout.strip()}"


def test_version_is_the_same_everywhere() -> None:
    assert version(PROJECT["name"]) == PROJECT["version"]
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest[1] == PROJECT["version"]


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
    dist_info = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"circuits", "models", dist_info}


# --- floors -----------------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command as f; f(['--no-logo', '--no-cache'])"
    return run(sys.executable, "-c", program, cwd=folder)


def test_imports_go_down() -> None:
    answer = lint_imports(ROOT)
    assert answer.returncode == 0, answer.stdout


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
    answer = lint_imports(tmp_path)
    assert answer.returncode == 1
    assert refusal in answer.stdout


def imports(path: Path) -> list[tuple[str, str]]:
    """Every (module, name) that a file imports by `from module import name`."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return [(node.module or "", name.name) for node in found for name in node.names]


FOLDERS = sorted(path.name for path in (ROOT / "circuits").iterdir() if (path / "__init__.py").exists())
CROSSING = [
    (path, module, name)
    for path in sorted((ROOT / "circuits").rglob("*.py"))
    for module, name in imports(path)
    if module.startswith("circuits.") and module.split(".")[1] in FOLDERS
    if module.split(".")[1] != path.relative_to(ROOT / "circuits").parts[0]
]
"""The imports of one folder from another: (file, module, name)."""


def test_folders_import_from_each_other_by_their_init() -> None:
    deep = [f"{path.relative_to(ROOT)}: {module}" for path, module, _ in CROSSING if module.count(".") > 1]
    assert CROSSING
    assert not deep


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_is_and_offers_what_others_use(folder: str) -> None:
    tree = ast.parse((ROOT / "circuits" / folder / "__init__.py").read_text())
    assert re.search(r"\b(start with|in order|in the order)\b", ast.get_docstring(tree) or "", re.IGNORECASE)
    offered = {name for node in tree.body if isinstance(node, ast.Assign) for name in ast.literal_eval(node.value)}
    used = {name for _, module, name in CROSSING if module == f"circuits.{folder}"}
    assert offered
    assert folder == "laws" or offered <= used, (
        f"nothing uses {offered - used}"
    )  # users call laws, other folders do not


def test_no_file_hides_a_public_function() -> None:
    """A module `circuits.trace` would become the attribute `trace` of `circuits` in place of the function."""
    functions = {name for name in circuits.__all__ if not inspect.ismodule(getattr(circuits, name))}
    assert not functions & {path.stem for path in (ROOT / "circuits").iterdir()}


# --- scripts/env ------------------------------------------------------------------------------------------------------

# A Python that makes no environment and downloads nothing, but notes what pip was asked for.
STAND_IN = f"""#!/usr/bin/env bash
case "$1 ${{2-}}" in
    "-c "*) echo "$0" ;;
    "--version ") echo "Python 3.11.0" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        echo "${{*:3}}" >>"$CALLS"
        sleep "${{NAP:-0}}"
        if [[ -n ${{REFUSE:-}} && $* =~ $REFUSE ]]; then
            echo "ERROR: No matching distribution found for ${{!#}}"
            exit 1
        fi
        ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
TORCH, PINS, THE_PROJECT, PEERS = "torch==", "pins.txt", "--editable", "peers.txt"

Env = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What scripts/env needs, in a folder of its own whose name has a space."""
    folder = tmp_path / "a copy"
    (folder / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "scripts/env", "scripts/pins.txt", "scripts/peers.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def env(copy: Path, tmp_path: Path) -> Env:
    """Run the copy's scripts/env with the stand-in; the answer, and pip's commands since the last run."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def call(*command: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        calls.write_text("")
        settings = {"PYTHON": str(python), "CALLS": str(calls), "TORCH": "cpu"} | variables
        answer = run(copy / "scripts" / "env", *(command or ("true",)), cwd=tmp_path, variables=settings)
        return answer, calls.read_text().splitlines()

    return call


def steps(commands: list[str]) -> list[str]:
    return [next(kind for kind in (TORCH, PINS, THE_PROJECT, PEERS) if kind in command) for command in commands]


def test_env_makes_the_environment_once_and_runs_the_command_in_it(env: Env, copy: Path) -> None:
    answer, commands = env("bash", "-c", 'echo "$VIRTUAL_ENV"; command -v python; exit 7')
    assert answer.returncode == 7
    assert answer.stdout.splitlines() == [f"{copy}/.venv", f"{copy}/.venv/bin/python"]
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    answer, commands = env()
    assert (commands, answer.stderr) == ([], "")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("pyproject.toml", [THE_PROJECT]),
        ("scripts/pins.txt", [TORCH, PINS, THE_PROJECT, PEERS]),
        ("scripts/env", [TORCH, PINS, THE_PROJECT, PEERS]),
        ("scripts/peers.txt", [PEERS]),
    ],
)
def test_env_remakes_what_a_changed_file_decides(file: str, expected: list[str], env: Env, copy: Path) -> None:
    env()
    with (copy / file).open("a") as text:
        text.write("\n# a change\n")
    assert steps(env()[1]) == expected
    assert env()[1] == []


def test_env_remakes_for_another_torch(env: Env) -> None:
    env()
    _, commands = env(TORCH="gpu")
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    assert "+cpu" not in commands[0]


@pytest.mark.parametrize("interrupted", [PINS, THE_PROJECT])
def test_env_does_not_trust_an_environment_that_was_cut_short(interrupted: str, env: Env) -> None:
    failed, _ = env(REFUSE=interrupted)
    assert failed.returncode == 1
    answer, commands = env()
    assert answer.returncode == 0
    assert steps(commands)[-2:] == [THE_PROJECT, PEERS]
    assert (TORCH in steps(commands)) == (interrupted == PINS)


def test_env_goes_on_without_peers_and_tries_them_once(env: Env) -> None:
    answer, commands = env(REFUSE=PEERS)
    assert answer.returncode == 0
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    assert "the peers of scripts/peers.txt did not install" in answer.stderr
    assert env()[1] == []


@pytest.mark.skipif(sys.platform == "darwin", reason="the registry's torch for macOS is a CPU build already")
def test_env_asks_pytorchs_own_index_where_the_usual_one_has_no_cpu_build(env: Env) -> None:
    answer, commands = env(REFUSE="no-compile torch==")
    assert answer.returncode == 0
    assert steps(commands) == [TORCH, TORCH, PINS, THE_PROJECT, PEERS]
    assert "--index-url https://download.pytorch.org/whl/cpu" in commands[1]


def test_two_runs_at_once_make_one_environment(copy: Path, env: Env, tmp_path: Path) -> None:
    env(REFUSE=TORCH)
    variables = os.environ | {"PYTHON": str(tmp_path / "python"), "CALLS": str(tmp_path / "calls"), "NAP": "0.3"}
    (tmp_path / "calls").write_text("")
    both = [subprocess.Popen([copy / "scripts" / "env", "true"], env=variables, stderr=subprocess.PIPE) for _ in "ab"]
    errors = b"".join(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert b"waiting" in errors
    assert steps((tmp_path / "calls").read_text().splitlines()) == [TORCH, PINS, THE_PROJECT, PEERS]


@pytest.mark.parametrize(
    ("command", "variables", "line"),
    [
        ([], {}, "usage: ./scripts/env COMMAND [ARGUMENT...]"),
        (["true"], {"TORCH": "tpu"}, "TORCH is 'tpu'; it can be cpu or gpu"),
        (["true"], {"PYTHON": "no-such-python"}, "needs Python 3.11 or newer with its venv module"),
    ],
)
def test_env_says_in_one_line_what_is_wrong(
    command: list[str], variables: dict[str, str], line: str, copy: Path
) -> None:
    answer = run(copy / "scripts" / "env", *command, variables=variables)
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stderr.startswith(f"scripts/env: {line}")


@pytest.mark.slow
def test_env_without_a_network_says_so_in_one_line(copy: Path) -> None:
    """The real Python and the real pip, which finds nothing anywhere."""
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    variables = nothing | {"PYTHON": sys.executable, "TORCH": "cpu"}
    answer = run(copy / "scripts" / "env", "true", variables=variables)
    assert answer.returncode == 1
    *progress, last = answer.stderr.splitlines()
    assert all(re.match(r"scripts/env: (making|installing) ", line) for line in progress)
    assert re.fullmatch(
        r"scripts/env: could not fetch torch==\S+: making \.venv needs the network, once"
        r" \(a finished \.venv needs none\); pip's log is \.venv/pip\.log",
        last,
    )
    assert "No matching distribution" in (copy / ".venv" / "pip.log").read_text()
