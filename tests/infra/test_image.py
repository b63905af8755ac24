"""The Dockerfile says what an image should be, and its context has what it copies. `tests.support.image_steps` runs the steps themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerfile import is_ignored, parse_dockerfile, read_ignore
from tests.support.image_steps import SKIPPED

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "infra" / "image"


STAGES = parse_dockerfile((IMAGE / "Dockerfile").read_text())
IGNORE = read_ignore(ROOT / ".dockerignore")


def test_every_base_is_pinned_by_a_whole_version() -> None:
    """Or is a stage before."""
    names = {stage.name for stage in STAGES}
    assert all(stage.base in names or re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-slim-bookworm", stage.base) for stage in STAGES)


def test_the_last_stage_has_no_compiler_and_no_sources() -> None:
    """Only what earlier stages made, and an init."""
    last = STAGES[-1]
    assert all(text.startswith("--from=") for text in last.of("COPY"))
    assert not any(re.search(r"pip|cargo|gcc|build-essential|rust", text) for text in last.of("RUN"))


def test_the_last_stage_runs_as_a_user_by_number() -> None:
    """Kubernetes can't tell of a name whether it is root."""
    assert STAGES[-1].of("USER") == ["10001:10001"]


def test_signals_reach_statecast() -> None:
    """No shell in between, and an init that buries children."""
    assert STAGES[-1].of("ENTRYPOINT") == ['["tini", "--", "statecast"]']


def test_everything_installed_is_checked_by_its_hash() -> None:
    """All but the two wheels that were built here, which bring nothing else in."""
    commands = [command for stage in STAGES for text in stage.of("RUN") for command in text.split("&&")]
    installing = [command for command in commands if re.search(r"\bpip\b.* (install|wheel|download)\b", command)]
    assert len(installing) == 6
    for command in installing:
        assert " --require-hashes " in command or re.search(r"--no-deps( /wheels/\S+)+$", command.strip())


def test_nothing_secret_is_in_arguments_or_environment() -> None:
    """Both stay readable in the image."""
    for stage in STAGES:
        assert not any(re.search(r"(?i)secret|token|passw|key", text) for text in (*stage.of("ARG"), *stage.of("ENV")))


def test_the_image_has_the_python_and_ray_of_the_constraints() -> None:
    """Driver, workers and operator must agree on Ray; the kernel's wheel is for Python 3.11 and later."""
    constraints = (ROOT / "constraints.txt").read_text()
    manifest = (ROOT / "infra/kubernetes/rayjob/rayjob.yaml").read_text()
    ray = re.search(r"^ray==(\S+)", constraints, flags=re.MULTILINE)
    assert ray is not None and f"rayVersion: {ray[1]}\n" in manifest
    assert STAGES[0].base.startswith("python:3.11.")


def test_what_is_copied_is_in_the_context() -> None:
    """And .dockerignore leaves out what is not copied."""
    copied = [word for stage in STAGES for text in stage.of("COPY") if not text.startswith("--from=") for word in text.split()[:-1]]
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the repository's files: {listed.stderr.strip()}")
    files = listed.stdout.splitlines()
    context = [name for name in files if not is_ignored(name, IGNORE)]
    assert all(any(name == word or name.startswith(f"{word}/") for name in context) for word in copied)
    assert all(any(name == word or name.startswith(f"{word}/") for word in copied) for name in context)


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("schemas/ids.py", False),
        ("native/trie/Cargo.toml", False),
        ("native/target/release/x", True),
        ("pipelines/kernel/__pycache__/x.pyc", True),
        ("infra/terraform/terraform.tfstate", True),
        ("signing_key.json", True),
        (".git/config", True),
    ],
)
def test_the_context_is_a_list_of_what_may_get_in(path: str, ignored: bool) -> None:
    """So that a key or a state file that lies about stays out."""
    assert is_ignored(path, IGNORE) is ignored


def test_steps_left_out_are_those_of_an_image_alone() -> None:
    """Every other RUN is run."""
    left_out = [text for stage in STAGES for text in stage.of("RUN") if any(pattern.match(text) for pattern, _ in SKIPPED)]
    assert [text.split()[0] for text in left_out] == ["apt-get", "apt-get", "groupadd"]


def test_an_instruction_that_is_not_known_is_refused() -> None:
    """Passing it over would leave a step untested."""
    with pytest.raises(ValueError, match="line 2: ADD is not known"):
        parse_dockerfile("FROM a:1\nADD x y\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_steps_run_in_an_empty_folder(tmp_path: Path) -> None:
    """From the repository's files alone: the kernel is built, both wheels are installed, the program starts."""
    if not all(subprocess.run(["which", program], capture_output=True, check=False).returncode == 0 for program in ("cargo", "git")):
        pytest.skip("cargo or git is not here")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.image_steps", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=3500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert re.search(r"^statecast \d+\.\d+\.\d+$", done.stdout, flags=re.MULTILINE)
