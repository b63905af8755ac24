"""What becomes of a Ray that does not start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.execution.on_ray import STARTS_MAX, RayExecutor
from schemas.errors import InvalidInputError, PartialResultError

TOO_SLOW = Exception("The current node timed out during startup.\nMore of it.")
"""As Ray raises it: of no class of its own."""

BEGIN_ANOTHER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("begun", flush=True)
time.sleep(600)
"""


def end(process: psutil.Process) -> None:
    """Kill a process that may have ended."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def failing_with(*errors: Exception) -> Callable[..., None]:
    """Return what stands in for ray.init and fails in another way each time."""
    left = iter(errors)

    def start(**options: object) -> None:
        raise next(left)

    return start


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no Ray in this process."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


def test_a_start_that_took_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it fails for another reason."""
    monkeypatch.setattr(ray, "init", failing_with(TOO_SLOW, TOO_SLOW, RuntimeError("versions differ")))
    with pytest.raises(InvalidInputError, match="versions differ"):
        RayExecutor(cpus=1)


def test_a_ray_that_never_starts_is_an_error_that_a_rerun_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first line of what Ray says."""
    monkeypatch.setattr(ray, "init", failing_with(*[TOO_SLOW] * STARTS_MAX))
    with pytest.raises(PartialResultError, match=r"3 times: The current node timed out during startup\. \[embedded Ray\]") as caught:
        RayExecutor(cpus=1)
    assert "same command again" in str(caught.value)


def test_an_error_without_words_is_named_by_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the line says something."""
    monkeypatch.setattr(ray, "init", failing_with(OSError()))
    with pytest.raises(InvalidInputError, match="Ray did not start: OSError"):
        RayExecutor(cpus=1)


def test_nothing_is_left_running_of_a_start_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what Ray had begun, nor what that had begun; processes of others stay."""
    begun: list[psutil.Process] = []

    def start(**options: object) -> None:
        program = str(Path(ray.__file__).parent / "raylet")
        first = starting.enter_context(subprocess.Popen([sys.executable, "-c", BEGIN_ANOTHER, program], stdout=subprocess.PIPE))
        assert first.stdout is not None and first.stdout.readline() == b"begun\n"
        process = psutil.Process(first.pid)
        for one in (process, *process.children()):
            begun.append(one)
            starting.callback(end, one)
        raise TOO_SLOW

    monkeypatch.setattr(ray, "init", start)
    with ExitStack() as starting:
        other = starting.enter_context(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        starting.callback(other.kill)
        with pytest.raises(PartialResultError):
            RayExecutor(cpus=1)
        assert len(begun) == 2 * STARTS_MAX
        assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in begun)
        assert other.poll() is None
