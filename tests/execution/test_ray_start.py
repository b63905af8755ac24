"""What becomes of a Ray that does not start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import ray

from pipelines.execution.on_ray import STARTS_MAX, RayExecutor
from schemas.errors import InvalidInputError, PartialResultError

TOO_SLOW = Exception("The current node timed out during startup.\nMore of it.")
"""As Ray raises it: of no class of its own."""


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
