"""Who may run code on a cluster: what a driver says of one that lets anybody in, and what it needs for one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.options import open_executor
from jobs.terminal import configure_logging
from pipelines.execution.on_ray import RayExecutor
from schemas.errors import InvalidInputError
from tests.support.commands import epoch_folder, statecast
from tests.support.published import public_key, published_localnet
from tests.support.ray_cluster import LocalCluster, local_cluster

import ray  # isort: skip


@pytest.fixture(scope="module")
def asking() -> Iterator[LocalCluster]:
    """A cluster that asks for a token, as all of our own do."""
    assert not ray.is_initialized(), "another module left its Ray running"
    with local_cluster() as cluster:
        cluster.add("one")
        yield cluster


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token, and there is none here"),
        ({}, "asks for a token, and there is none here"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, "does not take this token"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "does not take this token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "can't be read"),
        ({"RAY_AUTH_MODE": "password"}, "no way to authenticate"),
    ],
)
def test_without_the_token_nothing_runs(
    asking: LocalCluster, variables: dict[str, str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the reason is said at once, where Ray by itself would try for half a minute and say nothing of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = statecast("check", epoch_folder(published_localnet()), "--trust-key", public_key(), "--ray-address", asking.address)
    assert outcome.code == 2 and problem in outcome.error_line and "RAY_AUTH" in outcome.error_line


@pytest.mark.parametrize("form", ["variables", "token alone", "file"])
def test_with_the_token_it_is_a_cluster_like_any(
    asking: LocalCluster, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However the token is given; nothing is said of it."""
    if form != "variables":
        monkeypatch.delenv("RAY_AUTH_MODE")
    if form == "file":
        (tmp_path / "token").write_text(asking.token)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    executor = open_executor(asking.address, None, False, None)
    executor.close()
    assert "token" not in capsys.readouterr().err


def test_a_cluster_that_lets_anybody_in_is_said_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line that says what it means and what to do; it is used all the same."""
    configure_logging()
    with local_cluster(with_token=False) as cluster:
        cluster.add("one")
        executor = open_executor(cluster.address, None, False, None)
        assert isinstance(executor, RayExecutor)
        executor.close()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "[warning" in line]
    assert f"anybody who reaches the Ray cluster at {cluster.address} runs code" in line and "RAY_AUTH_MODE=token" in line


def test_an_embedded_ray_warns_of_nothing() -> None:
    """It asks for a token, whatever the environment says of clusters."""
    executor = RayExecutor(cpus=1)
    assert executor.warning == ""
    executor.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379"])
def test_an_address_where_nobody_is_is_said_at_once(address: str) -> None:
    """Ray by itself would try for minutes."""
    with pytest.raises(InvalidInputError, match=f"nobody answers.*{address}"):
        RayExecutor(address)
