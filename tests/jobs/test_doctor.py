"""``statecast doctor``, and the same look before a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.execution.progress import SilentProgress
from pipelines.execution.stage_runner import go_on
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.producing.preflight import disk_space
from pipelines.producing.preflight.disk_space import FreeSpace
from pipelines.producing.watch.watch_node import Watcher
from pipelines.stores.memory_store import OPENERS
from schemas.ids import CryptoHash
from tests.support.commands import Outcome, objects_in, statecast
from tests.support.doctor_pictures import PICTURES, SITUATIONS, CarelessStore, drawn, verdicts
from tests.support.nodes import copied, localnet_home, tree
from tests.support.productions import new_store_url
from tests.support.published import produce_localnet, signing_key
from tests.support.servers import aws_environment, make_s3_bucket, moto_server
from tests.support.store_proxy import StoreProxy, WithoutConditions, store_proxy


def _doctor(*options: object) -> Outcome:
    return statecast("doctor", "--in-process", "--json", *options)


def _verdicts(outcome: Outcome) -> dict[str, str]:
    return {finding["name"]: finding["verdict"] for finding in outcome.document["findings"]}


def _no_space(monkeypatch: pytest.MonkeyPatch, free_bytes: int = 1 << 20) -> None:
    monkeypatch.setattr(disk_space, "free_space", lambda _folder: FreeSpace(1, free_bytes, None, writable=True))


def test_a_node_that_can_be_published_has_nothing_to_be_mended(tmp_path: Path) -> None:
    """Exit code 0; nothing is written that stays, in the node's home or the destination."""
    before = tree(localnet_home())
    outcome = _doctor("--node-home", localnet_home(), "--to", tmp_path, "--signing-key", signing_key())
    assert outcome.code == 0, outcome.stdout
    document = outcome.document
    assert document["failed"] == 0 and document["needs"]["memory_usage"] > 1_000_000
    assert set(_verdicts(outcome).values()) == {"ok"}
    names = {"epoch", "snapshots", "key", "memory", "open files", "destination", "clock", "settings"}
    assert names < set(_verdicts(outcome))
    assert tree(localnet_home()) == before and not objects_in(tmp_path)


def test_the_place_of_the_tables_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By doctor, by a plan and before a run: whether it can be written, what is there, and whether there is room."""
    tables = tmp_path / "tables"
    tables.mkdir()
    options = ("--node-home", localnet_home(), "--to", tmp_path / "out", "--tables", tables)
    key = ("--signing-key", signing_key())
    outcome = _doctor(*options, *key)
    assert outcome.code == 0 and _verdicts(outcome)["tables"] == "ok" and not objects_in(tables)
    (space,) = [one for one in outcome.document["findings"] if one["name"].startswith("space")]
    assert "--tables" in space["name"] and str(tables) in space["where"]
    planned = statecast("produce", *options, *key, "--plan", "--json")
    assert planned.document["tables"] == f"file://{tables}"
    assert planned.document["takes"]["tables_bytes"] == outcome.document["needs"]["tables_bytes"] > 100_000
    careless = new_store_url()
    monkeypatch.setitem(OPENERS, careless.removeprefix("memory://"), CarelessStore)
    assert _verdicts(_doctor(*options[:-1], careless, *key))["tables"] == "warn"
    (tables / "_catalogue.json").write_text("{")
    for command, code in (("doctor", 2), ("produce", 10)):
        refused = statecast(command, *options, *key, "--in-process", "--json")
        assert refused.code == code and "is not JSON" in refused.stdout, refused.stdout
    assert not (tmp_path / "out").exists()


def test_a_person_sees_a_table(tmp_path: Path) -> None:
    """With what was found, and what to do."""
    outcome = statecast("doctor", "--to", tmp_path, "--allow-unsigned", "--signing-key", tmp_path / "none")
    assert outcome.code == 2
    for text in ("fail", "key", "the key file can't be read", "statecast keygen makes one", "1 to be mended before a run"):
        assert text in outcome.stdout


def test_every_fault_is_found_at_once(tmp_path: Path) -> None:
    """A home whose snapshots are off and gone and whose flat state is of another block, a key that others can read, a place that is only read."""
    home = copied(localnet_home(), tmp_path)
    config = json.loads((home / "config.json").read_text())
    config["store"]["state_snapshot_config"] = {"state_snapshot_type": "Disabled"}
    (home / "config.json").write_text(json.dumps(config))
    for file in sorted((home / "data" / "state_snapshot").rglob("CURRENT")):
        file.unlink()
    key = tmp_path / "key.json"
    key.write_bytes(signing_key().read_bytes())
    key.chmod(0o644)
    outcome = _doctor("--node-home", home, "--to", "http://127.0.0.1:9/x", "--signing-key", key)
    assert outcome.code == 2
    verdicts = _verdicts(outcome)
    assert {name for name, verdict in verdicts.items() if verdict == "fail"} == {"snapshots", "key", "destination"}
    assert all(finding["remedy"] for finding in outcome.document["findings"] if finding["verdict"] == "fail")


@pytest.mark.parametrize("home", ["none", "file", "empty"])
def test_what_is_no_home_is_found_and_the_rest_is_looked_at(home: str, tmp_path: Path) -> None:
    """Each thing by itself."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    outcome = _doctor("--node-home", tmp_path / home, "--allow-unsigned", "--to", tmp_path)
    verdicts = _verdicts(outcome)
    assert outcome.code == 2 and verdicts["node"] == "fail" and verdicts["destination"] == "ok"


def test_a_full_disk_is_found_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By doctor, and by produce and backfill with exit code 2."""
    _no_space(monkeypatch)
    outcome = _doctor("--node-home", localnet_home(), "--to", tmp_path, "--signing-key", signing_key())
    assert outcome.code == 2 and [finding["name"] for finding in outcome.document["findings"] if finding["verdict"] == "fail"] == [
        "space --work and --to"
    ]
    run = produce_localnet(tmp_path / "out")
    assert run.code == 2 and "not enough space: 1.0 MiB free, the run puts about" in run.error_line and "--work" in run.error_line
    past = statecast(
        "backfill", "--node-home", localnet_home(), "--epochs", "6", "--to", tmp_path / "out", "--allow-unsigned", "--in-process"
    )
    assert past.code == 2 and "not enough space" in past.error_line
    alone = statecast("export", "--node-home", localnet_home(), "--to", f"dataset://{tmp_path / 'out'}", "--in-process")
    assert alone.code == 2 and "not enough space" in alone.error_line and "--to" in alone.error_line
    assert not (tmp_path / "out").exists()


def test_a_sorted_copy_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source that is a file, in the folder that the run fills or, where that is a bucket, among temporary files; the plan names its size."""
    records = tmp_path / "records.jsonl"
    records.write_text("".join(f'{{"key": "{index:08x}", "value": "{"00" * 4000}"}}\n' for index in range(500)))
    given, out = ("--from", f"records://{records}"), tmp_path / "out"
    planned = statecast("produce", *given, "--to", out, "--allow-unsigned", "--plan", "--in-process")
    assert "a sorted copy of it takes 1.7 MiB to 6.1 MiB" in planned.stdout
    _no_space(monkeypatch)
    for arguments in (
        ("produce", *given, "--to", out, "--allow-unsigned", "--work", tmp_path / "work"),
        ("produce", *given, "--to", new_store_url(), "--allow-unsigned", "--work", new_store_url()),
        ("export", *given, "--to", f"dataset://{out}"),
        ("export", *given, "--to", f"dataset://{new_store_url()}"),
    ):
        run = statecast(*arguments, "--in-process")
        assert run.code == 2 and "the run puts about 1.7 MiB there, and what is known after reading" in run.error_line, (arguments, run)
        assert ("TMPDIR" in run.error_line) is any("memory://" in str(argument) for argument in arguments)
    assert not out.exists()


def test_an_export_can_be_begun_without_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runs that publish."""
    _no_space(monkeypatch)
    options = ("--to", f"dataset://{tmp_path / 'out'}", "--shard-id", 0, "--in-process", "--no-preflight")
    assert statecast("export", "--node-home", localnet_home(), *options).code == 0


def test_a_watcher_looks_before_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its size, which is not known at the start: what does not fit is neither claimed nor read."""
    attempts: list[CryptoHash] = []

    def attempt_once(self: Watcher) -> None:
        _no_space(monkeypatch)
        attempts.append(epoch_context_from_node(localnet_home()).epoch_id)
        self.work.produce(attempts[0], SilentProgress(), go_on, lambda _claim: pytest.fail("it was claimed"))

    monkeypatch.setattr(Watcher, "run", attempt_once)
    run = statecast("watch", "--node-home", localnet_home(), "--to", tmp_path / "out", "--allow-unsigned", "--in-process")
    assert attempts and run.code == 2 and "not enough space: 1.0 MiB free, the run puts about" in run.error_line
    assert not (tmp_path / "out").exists()


def test_a_backfill_of_what_is_published_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to do is nothing to do, also on a full disk."""
    options = ("--node-home", localnet_home(), "--epochs", "6", "--shard-id", 0, "--to", tmp_path, "--allow-unsigned", "--in-process")
    assert statecast("backfill", *options).code == 0
    before = tree(tmp_path)
    _no_space(monkeypatch, free_bytes=1)
    again = statecast("backfill", *options, "--json")
    assert again.code == 0 and [step["state"] for step in again.document["steps"]] == ["published"]
    assert tree(tmp_path) == before
    for part in tmp_path.rglob("state_part_*"):
        part.unlink()
    assert "not enough space" in statecast("backfill", *options).error_line


def test_a_plan_says_what_a_run_takes_and_what_is_published_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About; the plan of what is published says that there is nothing to do, and so does the run, also on a full disk.

    A run that is told not to look begins there.
    """
    planned = produce_localnet(tmp_path, "--shard-id", 0, "--plan", "--json").document
    assert planned["nothing_to_do"] is False and planned["workers"] == 1 and planned["takes"]["seconds"] > 0
    assert not tuple(tmp_path.iterdir())
    _no_space(monkeypatch)
    assert produce_localnet(tmp_path, "--shard-id", 0, "--no-preflight").code == 0
    stored = sum(path.stat().st_size for path in tmp_path.rglob("state_part_*"))
    assert 0.8 * stored < planned["takes"]["bytes"] < 1.2 * stored
    assert planned["takes"]["peak_disk_bytes"] > 0 and planned["takes"]["worker_memory_bytes"] > 250 << 20
    before = tree(tmp_path)
    assert "nothing to do" in produce_localnet(tmp_path, "--shard-id", 0, "--plan").stdout
    assert produce_localnet(tmp_path, "--shard-id", 0, "--plan", "--json", "--repair").document["nothing_to_do"] is False
    assert tree(tmp_path) == before
    again = produce_localnet(tmp_path, "--shard-id", 0)
    assert again.code == 0 and "nothing to do" in again.stdout


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_pictures_of_the_docs_show_what_is_printed(name: str) -> None:
    """The same lines with the same verdicts, but for what a machine has; `python -m tests.support.doctor_pictures` draws them again."""
    shown, today = verdicts((PICTURES / f"{name}.svg").read_text()), verdicts(drawn(name))
    of_machine = {"memory", "open files"}
    assert list(shown) == list(today) and len(today) >= 8
    assert {what: verdict for what, verdict in shown.items() if what not in of_machine} == {
        what: verdict for what, verdict in today.items() if what not in of_machine
    }
    assert f"{name}.svg" in (PICTURES / "doctor.md").read_text()


def test_a_store_without_conditions_is_refused_for_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left there; --ignore-claim, which asks for no claim, is warned."""
    url = new_store_url()
    monkeypatch.setitem(OPENERS, url.removeprefix("memory://"), CarelessStore)
    run = produce_localnet(url, "--shard-id", 0)
    assert run.code == 2 and "takes no notice of If-None-Match" in run.error_line and "--ignore-claim" in run.error_line
    assert not list(CarelessStore(url.removeprefix("memory://")).list())
    all_the_same = produce_localnet(url, "--shard-id", 0, "--ignore-claim")
    assert all_the_same.code == 0 and "takes no notice of If-None-Match" in all_the_same.stderr


@pytest.fixture(scope="module")
def s3() -> Iterator[StoreProxy]:
    """A proxy before an S3 server with a bucket."""
    with aws_environment(), moto_server() as url, store_proxy(url) as proxy, pytest.MonkeyPatch.context() as patch:
        make_s3_bucket(url, "bucket")
        patch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


def test_a_bucket_that_keeps_its_promises_is_left_empty(s3: StoreProxy) -> None:
    """Every request for an object is of one name, which a producer of a locked bucket may delete."""
    s3.quiet()
    outcome = _doctor("--to", "s3://bucket/a", "--allow-unsigned")
    assert outcome.code == 0 and _verdicts(outcome)["destination"] == "ok", outcome.stdout
    paths = {request.path for request in s3.requests if request.method != "GET" or "bucket/a" in request.path}
    assert len(paths) == 1 and "/bucket/a/statecast-probe/leases/" in paths.pop()
    assert s3.requests[-1].method == "DELETE"


def test_a_bucket_that_ignores_conditions_is_found(s3: StoreProxy) -> None:
    """Over HTTP, as a server of an older make."""
    s3.fail_once(WithoutConditions(), times=-1)
    outcome = _doctor("--to", "s3://bucket/a", "--allow-unsigned")
    (finding,) = (one for one in outcome.document["findings"] if one["name"] == "destination")
    assert outcome.code == 2 and "takes no notice of If-None-Match and If-Match" in finding["found"]
    assert s3.requests[-1].method == "DELETE"
