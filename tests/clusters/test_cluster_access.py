"""Who may run code on a cluster: a driver warns of an open one, and needs the token of a closed one."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.options import RunOptions, open_executor
from jobs.terminal import configure_logging
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.ray_authentication import lets_anybody_in
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
    assert outcome.code == 2
    assert re.fullmatch(rf"error: .*{problem}.*", outcome.error_line) and "RAY_AUTH" in outcome.error_line
    assert "did not start" not in outcome.error_line and "ray status" not in outcome.error_line, "one error, one remedy"


def test_the_cluster_that_the_environment_names_is_asked_too(asking: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is what manifests and documents name; left to itself, Ray would try for minutes."""
    monkeypatch.setenv("RAY_ADDRESS", asking.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(InvalidInputError, match=r"does not take this token \[--ray-address auto\]"):
        RayExecutor("auto")
    monkeypatch.setenv("RAY_AUTH_TOKEN", asking.token)
    executor = RayExecutor("auto")
    assert executor.warning == "" and "on the Ray cluster" in executor.description
    executor.close()


def test_no_proxy_sees_the_token(asking: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is on a network of its own, and a proxy would be told the token in clear."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        executor = RayExecutor(asking.address)
        executor.close()
        proxy.settimeout(0.1)
        with pytest.raises(TimeoutError):
            proxy.accept()


@pytest.mark.parametrize("token", ["a\nb", "schlüssel"])
def test_what_can_be_no_token_is_said(asking: LocalCluster, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line too many in the file, perhaps."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(InvalidInputError, match="characters that no token has"):
        RayExecutor(asking.address)


@pytest.mark.parametrize("form", ["variables", "token alone", "file"])
def test_with_the_token_it_is_a_cluster_like_any(
    asking: LocalCluster, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However the token is given; there is no warning."""
    if form != "variables":
        monkeypatch.delenv("RAY_AUTH_MODE")
    if form == "file":
        (tmp_path / "token").write_text(asking.token)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    executor = open_executor(RunOptions(ray_address=asking.address))
    executor.close()
    assert "token" not in capsys.readouterr().err


def test_an_open_cluster_gets_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line that says what it means and what to do; it is used anyway."""
    configure_logging()
    with local_cluster(with_token=False) as cluster:
        cluster.add("one")
        executor = open_executor(RunOptions(ray_address=cluster.address))
        assert isinstance(executor, RayExecutor)
        executor.close()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "[warning" in line]
    assert f"everyone who reaches the Ray cluster at {cluster.address} runs code" in line and "RAY_AUTH_MODE=token" in line


@pytest.mark.slow
@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_ray_that_is_started_here_by_name_is_as_closed_as_any(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``local`` is Ray's word for it; the environment's settings for clusters and tokens don't apply to it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_K8S_TOKEN_AUTH", "true")
    if named == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "local")
    executor = RayExecutor("local" if named == "option" else None)
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    assert lets_anybody_in(address) is False
    assert executor.description.startswith("on Ray in this process") and executor.warning == ""
    executor.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379"])
def test_an_address_without_a_cluster_is_an_error_at_once(address: str) -> None:
    """Ray by itself would try for minutes."""
    with pytest.raises(InvalidInputError, match=f"nothing answers.*{address}"):
        RayExecutor(address)
