"""What options of several commands are parsed to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs import options
from jobs.options import RunOptions, open_executor, parse_duration_s, parse_interval_s, parse_rate
from jobs.publish_options import PublishOptions
from pipelines.execution import on_ray
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.small_work_first import SmallWorkFirst
from schemas.errors import InvalidInputError
from tests.support.command_line import commands
from tests.support.commands import statecast
from tests.support.published import published_localnet
from tests.support.stored_epochs import epoch_context


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1.5m", 90), ("2 H", 7200), ("36500d", 36_500 * 86_400)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours or days."""
    assert parse_duration_s(text, "--poll") == seconds


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--to", ("get", "bucket", "--account", "near", "--to", "gs://bucket/balances.parquet")),
        ("--accounts", ("get", "bucket", "--accounts", "s3://bucket/accounts.txt", "--to", "balances.parquet")),
        ("--out", ("prove", "bucket", "--account", "near", "--out", "az://container/proof.json")),
        ("--into", ("fetch", "bucket", "--into", "gs://bucket/parts")),
        ("--report", ("produce", "--node-home", "/node", "--to", "bucket", "--report", "https://host.example/report.html")),
        ("--node-home", ("export", "--node-home", "file:///home/near/.near", "--to", "dataset://state")),
    ],
)
def test_a_url_is_no_file_of_this_machine(option: str, arguments: tuple[str, ...]) -> None:
    """In place of a folder whose name ends in a colon."""
    outcome = statecast(*arguments)
    assert outcome.code == 2 and f"{option} takes a file or folder of this machine, and no " in outcome.stderr, outcome.stderr


@pytest.mark.parametrize("text", ["", "10", "0s", "-1s", "1w", "nan", "36501d", "999999999d"])
def test_other_durations_are_refused(text: str) -> None:
    """Also those that no timer and no calendar can hold."""
    with pytest.raises(InvalidInputError, match="--poll"):
        parse_duration_s(text, "--poll")


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("4", 4), ("0.2", 0.2), ("1m", 60)])
def test_an_interval_may_leave_its_unit_out(text: str, seconds: float) -> None:
    """Then it is seconds."""
    assert parse_interval_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0.09", "0.05s", "-1", "x", "nan", "1w"])
def test_other_intervals_are_refused(text: str) -> None:
    """By the option's name."""
    with pytest.raises(InvalidInputError, match="--poll-interval"):
        parse_interval_s(text)


def test_all_commands_that_look_again_name_the_time_between_alike() -> None:
    """One name, in the help too."""
    assert {name for name, options in commands().items() if "--poll-interval" in options} == {"assist", "mirror", "seed", "watch"}
    assert "--poll " not in statecast("watch", "--help").stdout


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
    open_executor(RunOptions(workers=2), beside_node=True)
    assert asked == [("auto", None, 7200.0), (None, 2, on_ray.PATIENCE_S), (None, 2, on_ray.PATIENCE_S)]
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


@pytest.mark.parametrize("text", ["200", "999999", "200B", "0.2KB", "200/s"])
def test_a_rate_too_small_to_be_meant_is_refused(text: str) -> None:
    """A unit was forgotten; the answer shows one."""
    with pytest.raises(InvalidInputError, match=r"too few to be meant \[--read-limit\]\. Write a unit, as in \d+MB"):
        parse_rate(text, "--read-limit")


def test_a_rate_with_a_unit_is_taken() -> None:
    """However small, from a kilobyte a second on; without a unit from a megabyte on."""
    assert [parse_rate(text, "--read-limit") for text in ("1KB", "5kb/s", "1000000")] == [1000, 5000, 1_000_000]


@pytest.mark.parametrize(
    "command",
    [
        ("produce", "--to", "x", "--allow-unsigned", "--node-home", "h", "--read-limit", "200"),
        ("export", "--to", "x", "--node-home", "h", "--read-limit", "200"),
        ("backfill", "--to", "x", "--allow-unsigned", "--node-home", "h", "--epochs", "1", "--read-limit", "200"),
        ("watch", "--to", "x", "--allow-unsigned", "--node-home", "h", "--read-limit", "200"),
        ("produce", "--to", "x", "--allow-unsigned", "--from", "records://RECORDS", "--upload-limit", "200"),
        ("watch", "--to", "x", "--allow-unsigned", "--node-home", "h", "--upload-limit", "200"),
        ("fetch", "x", "--into", "y", "--insecure", "--rate-limit", "200"),
        ("serve", ".", "--upload-limit", "200"),
    ],
)
def test_every_command_refuses_such_a_rate(command: tuple[str, ...]) -> None:
    """Before it reads anything."""
    outcome = statecast(*command)
    assert outcome.code == 2 and "too few to be meant" in outcome.error_line


def test_beside_a_node_half_the_cores_and_a_bounded_read_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless options say otherwise; what is read is shared among the processes."""
    monkeypatch.setattr(options, "machine_cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert RunOptions().read_limit_each(None) == 200_000_000 // 4
    assert RunOptions(workers=2).read_limit_each("500MB") == 250_000_000
    assert RunOptions(in_process=True).read_limit_each(None) == 200_000_000
    assert RunOptions().read_limit_each("none") is None
    assert "4 of 8 cores, low I/O priority, at most 200MB/s read" in RunOptions().neighbour_note(None)


def test_ray_beside_a_node_has_half_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """When more than seconds of work bring it up; elsewhere it has all."""
    asked: list[int | None] = []

    def executor(address: str | None, cpus: int | None, *, patience_s: float) -> SimpleNamespace:
        asked.append(cpus)
        return SimpleNamespace(warning="", run=lambda _tasks, _needs: iter(()), close=lambda: None)

    monkeypatch.setattr(options, "machine_cores", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(on_ray, "RayExecutor", executor)
    for beside_node in (True, False):
        larger = open_executor(RunOptions(), beside_node=beside_node)
        assert isinstance(larger, SmallWorkFirst)
        larger._left_s = 0.0
        list(larger.run(["task"], TaskNeeds(0)))  # type: ignore[arg-type]
    assert asked == [4, None]


def test_an_upload_limit_is_shared_by_the_workers() -> None:
    """And comes to the tasks that put parts."""
    publish = PublishOptions(to="memory://x", upload_limit="50MB", allow_unsigned=True)
    assert publish.publisher(epoch_context(1), None, 4).upload_limit_bytes_per_s == 12_500_000
    assert PublishOptions(to="memory://x").publisher(epoch_context(1), None, 4).upload_limit_bytes_per_s is None
