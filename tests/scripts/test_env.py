"""scripts/env creates .venv once, again when what it was made from changes, and says in one line what is wrong."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """The completed process of a command, with further environment variables."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True)


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
    """Run the copy's scripts/env with the stand-in; the completed process, and pip's commands since the last run."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def call(*command: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        calls.write_text("")
        settings = {"PYTHON": str(python), "CALLS": str(calls), "TORCH": "cpu"} | variables
        result = run(copy / "scripts" / "env", *(command or ("true",)), cwd=tmp_path, variables=settings)
        return result, calls.read_text().splitlines()

    return call


def steps(commands: list[str]) -> list[str]:
    return [next(kind for kind in (TORCH, PINS, THE_PROJECT, PEERS) if kind in command) for command in commands]


@pytest.mark.slow
def test_env_makes_the_environment_once_and_runs_the_command_in_it(env: Env, copy: Path) -> None:
    result, commands = env("bash", "-c", 'echo "$VIRTUAL_ENV"; command -v python; exit 7')
    assert result.returncode == 7
    assert result.stdout.splitlines() == [f"{copy}/.venv", f"{copy}/.venv/bin/python"]
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    result, commands = env()
    assert (commands, result.stderr) == ([], "")


@pytest.mark.every(4)
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


@pytest.mark.slow
def test_env_for_gpu_stands_beside_the_one_for_cpu(env: Env, copy: Path) -> None:
    env()
    result, commands = env("bash", "-c", 'echo "$VIRTUAL_ENV"; command -v python', TORCH="gpu")
    assert result.stdout.splitlines() == [f"{copy}/.venv-gpu", f"{copy}/.venv-gpu/bin/python"]
    assert "making .venv-gpu, once: " in result.stderr
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    assert "+cpu" not in commands[0]
    assert [env(TORCH=torch)[1] for torch in ("cpu", "gpu", "cpu")] == [[], [], []]


@pytest.mark.slow
def test_a_change_remakes_each_environment_when_it_is_used(env: Env, copy: Path) -> None:
    env()
    env(TORCH="gpu")
    with (copy / "scripts" / "pins.txt").open("a") as text:
        text.write("\n# a change\n")
    assert steps(env(TORCH="gpu")[1]) == steps(env()[1]) == [TORCH, PINS, THE_PROJECT, PEERS]
    assert (env()[1], env(TORCH="gpu")[1]) == ([], [])


@pytest.mark.slow
def test_an_environment_that_fails_leaves_the_other_and_names_its_own_log(env: Env, copy: Path) -> None:
    env()
    failed, _ = env(TORCH="gpu", REFUSE=PINS)
    assert failed.returncode == 1
    assert "a finished .venv-gpu needs none); pip's log is .venv-gpu/pip.log" in failed.stderr
    assert (copy / ".venv-gpu" / "pip.log").exists()
    assert env()[1] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone")
@pytest.mark.parametrize("name", [".venv", ".venv-gpu"])
def test_git_ignores_both_environments(name: str) -> None:
    assert run("git", "check-ignore", f"{name}/bin/python").returncode == 0


@pytest.mark.every(2)
@pytest.mark.parametrize("interrupted", [PINS, THE_PROJECT])
def test_env_does_not_trust_an_environment_that_was_cut_short(interrupted: str, env: Env) -> None:
    failed, _ = env(REFUSE=interrupted)
    assert failed.returncode == 1
    result, commands = env()
    assert result.returncode == 0
    assert steps(commands)[-2:] == [THE_PROJECT, PEERS]
    assert (TORCH in steps(commands)) == (interrupted == PINS)


@pytest.mark.slow
def test_env_goes_on_without_peers_and_tries_them_once(env: Env) -> None:
    result, commands = env(REFUSE=PEERS)
    assert result.returncode == 0
    assert steps(commands) == [TORCH, PINS, THE_PROJECT, PEERS]
    assert "the peers of scripts/peers.txt did not install" in result.stderr
    assert env()[1] == []


@pytest.mark.skipif(sys.platform == "darwin", reason="the registry's torch for macOS is a CPU build already")
def test_env_asks_pytorchs_own_index_where_the_usual_one_has_no_cpu_build(env: Env) -> None:
    result, commands = env(REFUSE="no-compile torch==")
    assert result.returncode == 0
    assert steps(commands) == [TORCH, TORCH, PINS, THE_PROJECT, PEERS]
    assert "--index-url https://download.pytorch.org/whl/cpu" in commands[1]


@pytest.mark.slow
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
    result = run(copy / "scripts" / "env", *command, variables=variables)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"scripts/env: {line}")


@pytest.mark.slow
def test_env_without_a_network_says_so_in_one_line(copy: Path) -> None:
    """The real Python and the real pip, which finds nothing anywhere."""
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    variables = nothing | {"PYTHON": sys.executable, "TORCH": "cpu"}
    result = run(copy / "scripts" / "env", "true", variables=variables)
    assert result.returncode == 1
    *progress, last = result.stderr.splitlines()
    assert all(re.match(r"scripts/env: (making|installing) ", line) for line in progress)
    assert re.fullmatch(
        r"scripts/env: could not fetch torch==\S+: making \.venv needs the network, once"
        r" \(a finished \.venv needs none\); pip's log is \.venv/pip\.log",
        last,
    )
    assert "No matching distribution" in (copy / ".venv" / "pip.log").read_text()
