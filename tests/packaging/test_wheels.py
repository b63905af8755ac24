"""What is published as wheels is all that a machine needs: they hold the program, and run in an environment that has nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
SCRIPTS = Path(sysconfig.get_path("scripts"))
DEMO_FILES = ("examples/demo.py", "tests/fixtures/nodes/localnet.tar.gz")


@pytest.fixture(scope="module")
def statecast_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel in the folder STATECAST_WHEELS, or one that is built now."""
    folder = os.environ.get("STATECAST_WHEELS")
    if folder is None:
        folder = str(tmp_path_factory.mktemp("dist"))
        subprocess.run([SCRIPTS / "hatchling", "build", "--target", "wheel", "--directory", folder], cwd=ROOT, check=True, timeout=300)
    (wheel,) = (ROOT / folder).glob("statecast-*.whl")
    return wheel


@pytest.fixture(scope="module")
def kernel_wheel() -> Path:
    """Return the wheel in the folder STATECAST_WHEELS, or the one that `make setup` has built."""
    folder = ROOT / os.environ.get("STATECAST_WHEELS", Path(sys.prefix) / "wheels")
    wheels = sorted(folder.glob("statecast_kernel-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        pytest.skip("the native kernel's wheel is not built: `make setup` builds it where cargo is")
    return wheels[-1]


def _names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()


def _tracked_files() -> list[str]:
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    listed = subprocess.run(["git", "ls-files", "-z", "--", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the repository's files: {listed.stderr.strip()}")
    return [name for name in listed.stdout.split("\0") if name]


def test_the_wheel_has_every_file_of_the_packages_and_no_other(statecast_wheel: Path) -> None:
    """Templates and JSON Schemas too."""
    assert sorted(name for name in _names(statecast_wheel) if ".dist-info/" not in name) == sorted(_tracked_files())


def test_types_are_declared_in_both_wheels(statecast_wheel: Path, kernel_wheel: Path) -> None:
    """Else a type checker takes everything imported for Any."""
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(_names(statecast_wheel))
    assert {"statecast_kernel/py.typed", "statecast_kernel/__init__.pyi"} <= set(_names(kernel_wheel))


def test_both_wheels_bring_their_licence(statecast_wheel: Path, kernel_wheel: Path) -> None:
    """As a file, and by its identifier."""
    for wheel in (statecast_wheel, kernel_wheel):
        (folder,) = (path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info"))
        metadata = PathDistribution(folder).metadata
        assert metadata["License-Expression"] == "Apache-2.0"
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in _names(wheel))


@pytest.mark.slow
def test_the_demo_runs_out_of_the_wheels_alone(statecast_wheel: Path, kernel_wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own with the libraries that the wheel asks for, no cargo to be found and the repository nowhere near."""
    environment = tmp_path / "environment"
    uv = SCRIPTS / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt"]
    # Hundreds of megabytes, which nothing changes: links will do where the cache is on the same disk.
    subprocess.run([*install, "--link-mode", "hardlink", statecast_wheel, kernel_wheel], check=True, timeout=600)
    for name in DEMO_FILES:
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / name, tmp_path / name)

    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables["PATH"] = os.pathsep.join((str(environment / "bin"), "/usr/bin", "/bin"))
    assert shutil.which("cargo", path=variables["PATH"]) is None
    done = subprocess.run(
        [python, tmp_path / "examples" / "demo.py"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "native kernel" in done.stdout + done.stderr
    assert "<svg" in (report := (tmp_path / "demo" / "report.html").read_text()) or "<img" in report
