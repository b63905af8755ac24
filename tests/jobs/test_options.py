"""What options of several commands are parsed to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs.options import RunOptions, open_executor, parse_duration_s
from pipelines.execution import on_ray
from pipelines.execution.in_process import InProcessExecutor
from schemas.errors import InvalidInputError
from tests.support.command_line import commands
from tests.support.commands import statecast
from tests.support.published import published_localnet


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1.5m", 90), ("2 H", 7200), ("36500d", 36_500 * 86_400)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours or days."""
    assert parse_duration_s(text, "--poll") == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "-1s", "1w", "nan", "36501d", "999999999d"])
def test_other_durations_are_refused(text: str) -> None:
    """Also those that no timer and no calendar can hold."""
    with pytest.raises(InvalidInputError, match="--poll"):
        parse_duration_s(text, "--poll")


def test_every_command_that_may_run_on_a_cluster_takes_a_patience() -> None:
    """Wherever an address of one is taken."""
    on_a_cluster = {name for name, options in commands().items() if "--ray-address" in options}
    assert {"produce", "backfill", "watch", "check"} < on_a_cluster
    assert on_a_cluster == {name for name, options in commands().items() if "--ray-patience" in options}


def test_the_patience_comes_to_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, without one the executor's own, which is what the help says; no machine is waited for without Ray."""
    asked: list[tuple[object, ...]] = []

    def executor(address: str | None, cpus: int | None, *, patience_s: float) -> SimpleNamespace:
        asked.append((address, cpus, patience_s))
        return SimpleNamespace(warning="")

    monkeypatch.setattr(on_ray, "RayExecutor", executor)
    open_executor(RunOptions(ray_address="auto", ray_patience=7200.0))
    open_executor(RunOptions(workers=2))
    assert asked == [("auto", None, 7200.0), (None, 2, on_ray.PATIENCE_S)]
    assert parse_duration_s("10m", "--ray-patience") == on_ray.PATIENCE_S
    with pytest.raises(InvalidInputError, match="--in-process excludes"):
        open_executor(RunOptions(in_process=True, ray_patience=7200.0))


def test_the_patience_is_a_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another form is a usage error before anything is read."""
    asked: list[object] = []

    def in_process(run: RunOptions) -> InProcessExecutor:
        asked.append(run.ray_patience)
        return InProcessExecutor()

    monkeypatch.setattr("jobs.check.open_executor", in_process)
    for text, code in (("2h", 0), ("ten", 2), ("0s", 2)):
        outcome = statecast("check", published_localnet(), "--ray-patience", text, "--json")
        assert (outcome.code, "is not a duration" in outcome.stderr) == (code, code == 2)
    assert asked == [7200.0]
