"""The whole job to object stores: S3 and GCS servers on loopback, and a store that fails by seed."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stores import open_store as stores
from pipelines.stores.memory_store import OPENERS, MemoryStore
from pipelines.stores.open_store import open_store
from pipelines.stores.retrying import RetryingStore, RetryPolicy
from pipelines.stores.store import Store
from schemas.errors import EXIT_CODES
from schemas.published.object_layout import PROBE_FOLDER
from tests.support.commands import Outcome, is_lasting, objects_in, statecast
from tests.support.faulty_store import Fault, FaultyStore, seeded
from tests.support.productions import new_store_url
from tests.support.published import produce, produce_node_a, public_key, published_node_a
from tests.support.servers import (
    ACCESS_KEY,
    AZURITE_KEY,
    SECRET_KEY,
    azure_environment,
    azurite_server,
    gcs_bucket,
    make_azure_container,
    make_s3_bucket,
    s3_bucket,
    versitygw_server,
)
from tests.support.store_proxy import Answer, store_proxy
from tests.support.stored_bytes import stored_bytes

BOUNDARY = b"\n--==0==--"
"""What an object store's client would take for the end of a multipart body if it did not choose its boundary well."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server in this process."""
    with s3_bucket() as url:
        yield url


def objects_at(url: str) -> dict[str, bytes]:
    """Return all objects of a store."""
    store = open_store(url)
    return {info.name: stored_bytes(store, info.name) for info in store.list()}


def epoch_layout_of(folder: Path) -> str:
    """Return the name of the only epoch's folder in a store's folder."""
    (manifest,) = [name for name in objects_in(folder) if name.endswith("/manifest.json")]
    return manifest.removesuffix("/manifest.json")


def check_round_trip(url: str) -> None:
    """Produce a shard of node a, check it, damage it, and repair it."""
    options = ("--num-parts", 5, "--shard-id", 5)
    outcome = produce_node_a(url, *options)
    assert outcome.code == 0, outcome.stderr
    local = {name: (published_node_a() / name).read_bytes() for name in objects_in(published_node_a()) if "shard_id=5" in name}
    there = objects_at(url)
    assert {name: data for name, data in there.items() if is_lasting(name)} == local
    (manifest,) = [name for name in there if name.endswith("/manifest.json")]
    epoch = f"{url}/{manifest.removesuffix('/manifest.json')}"
    assert statecast("check", epoch, "--in-process").code == 0
    assert produce_node_a(url, *options, "--json").document["nothing_to_do"] is True
    part = next(name for name in there if name.endswith("state_part_000002_of_000005"))
    open_store(url).put(part, there[part][:-1])
    assert statecast("check", epoch, "--in-process").code == 20
    repaired = produce_node_a(url, *options, "--json")
    assert repaired.code == 0, repaired.stderr
    assert [shard["parts_reused"] for shard in repaired.document["shards"]] == [4]
    assert objects_at(url) == there


def check_boundary_bytes(url: str, folder: Path) -> None:
    """Publish parts whose own bytes look like the end of a multipart body."""
    records = folder / "records.jsonl"
    values = [BOUNDARY, BOUNDARY + b"\r\n", b"x" * 5000 + BOUNDARY]
    lines = [{"key": (b"\x00key" + bytes([number])).hex(), "value": value.hex()} for number, value in enumerate(values)]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = produce(url, "--from", f"records://{records}", "--num-parts", 2, "--encoding", "v0")
    assert outcome.code == 0, outcome.stderr
    parts = [data for name, data in objects_at(url).items() if "state_part" in name]
    assert sum(data.count(BOUNDARY) for data in parts) >= 3
    assert statecast("check", url, "--in-process").code == 0


def test_an_epoch_on_s3(s3: str) -> None:
    """The same objects as in a folder; checked, found again, repaired. None holds the keys that it was put with."""
    check_round_trip(f"{s3}/node-a")
    assert not any(key.encode() in data for data in objects_at(f"{s3}/node-a").values() for key in (ACCESS_KEY, SECRET_KEY))


@pytest.mark.slow
def test_a_part_that_looks_like_a_multipart_boundary(s3: str, tmp_path: Path) -> None:
    """It is stored as it is."""
    check_boundary_bytes(f"{s3}/boundary", tmp_path)


@pytest.mark.slow
def test_a_dataset_and_a_work_folder_on_s3(s3: str, tmp_path: Path) -> None:
    """Everything that workers share can lie in the bucket."""
    (tmp_path / "r.jsonl").write_text('{"key": "61", "value": "00"}\n{"key": "62", "value": "01"}\n')
    outcome = statecast(
        *("produce", "--from", f"records://{tmp_path / 'r.jsonl'}", "--to", f"{s3}/out", "--allow-unsigned", "--in-process"),
        *("--dataset", f"{s3}/dataset", "--work", f"{s3}/work"),
    )
    assert outcome.code == 0, outcome.stderr
    assert any(name.endswith("shard.json") for name in objects_at(f"{s3}/dataset"))
    assert objects_at(f"{s3}/work") == {}
    assert produce(f"{s3}/again", "--from", f"dataset://{s3}/dataset").code == 0


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    """The error is the store's, and has its name."""
    outcome = produce_node_a("s3://no-such-bucket/x", "--json")
    assert outcome.code == 30, outcome.stderr
    assert "no-such-bucket" in outcome.error_line


def test_a_public_bucket_is_checked_and_fetched_with_no_credentials(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to sign with, nowhere to ask for it, and no lease that could be written: a reader needs none of them."""
    endpoint_url = os.environ["AWS_ENDPOINT_URL_S3"]
    make_s3_bucket(endpoint_url, "public-states", public=True)
    assert produce_node_a("s3://public-states/x", "--shard-id", 5, "--num-parts", 5).code == 0
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with store_proxy(endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        epoch = f"s3://public-states/x/{epoch_layout_of(published_node_a())}"
        checked = statecast("check", epoch, "--in-process")
        assert checked.code == 0, checked.stderr
        fetched = statecast("fetch", epoch, "--into", tmp_path / "parts", "--trust-key", public_key())
        assert fetched.code == 0, fetched.stderr
    assert len(list((tmp_path / "parts").rglob("state_part_*"))) == 5
    assert not any("authorization" in asked.headers for asked in proxy.requests)


def test_a_store_that_is_down_for_good_ends_the_run_with_its_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 30, one line, no traceback and no secret, once the time for retries is over (here a second of it)."""
    # What retries are given to each store is its own default; here all of them are given less.
    monkeypatch.setattr(stores, "RetryingStore", lambda store, _: RetryingStore(store, RetryPolicy(timeout_s=1.0)))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with store_proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        proxy.script = lambda _: Answer(503)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        began_s = time.monotonic()
        outcome = produce_node_a(f"{s3}/down", "--json")
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "store_transient"), outcome.stderr
    # With the patience that is the default it would be minutes.
    assert time.monotonic() - began_s < 120
    assert f"{s3}/down" in outcome.error_line
    assert "Traceback" not in outcome.stderr
    assert not any(value in outcome.stderr for value in (SECRET_KEY, os.environ["AWS_SECRET_ACCESS_KEY"]))


@pytest.mark.slow
def test_what_is_published_to_gcs_names_no_credentials_of_ours(tmp_path: Path) -> None:
    """Nor does what is published to S3: manifests, statements, torrents and the catalogue hold names and hashes alone."""
    with gcs_bucket(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("GS_USER_PROJECT", "hidden-project")
        assert produce_node_a("gs://states/x", "--num-parts", 5).code == 0
        assert not any(b"hidden-project" in data for data in objects_at("gs://states/x").values())


@pytest.mark.slow
def test_an_epoch_on_azurite(tmp_path: Path) -> None:
    """Azure is a full destination: produced, checked, found again, repaired, fetched; a dataset and a work folder lie there too."""
    with pytest.MonkeyPatch.context() as patch, azure_environment(), azurite_server() as url:
        patch.setenv("AZURE_STORAGE_ENDPOINT", url)
        make_azure_container(url, "states")
        check_round_trip("az://states/node-a")
        assert not any(AZURITE_KEY.encode() in data for data in objects_at("az://states/node-a").values())
        check_boundary_bytes("az://states/boundary", tmp_path)
        fetched = statecast(
            "fetch", f"az://states/node-a/{epoch_layout_of(published_node_a())}", "--into", tmp_path / "parts", "--trust-key", public_key()
        )
        assert fetched.code == 0, fetched.stderr
        (tmp_path / "r.jsonl").write_text('{"key": "61", "value": "00"}\n')
        outcome = statecast(
            *("produce", "--from", f"records://{tmp_path / 'r.jsonl'}", "--to", "az://states/out", "--allow-unsigned", "--in-process"),
            *("--dataset", "az://states/dataset", "--work", "az://states/work"),
        )
        assert outcome.code == 0, outcome.stderr
        assert objects_at("az://states/work") == {}


@pytest.mark.slow
def test_an_epoch_on_versitygw(tmp_path: Path) -> None:
    """Another S3 server, with its objects in a folder."""
    (tmp_path / "buckets").mkdir()
    with s3_bucket(versitygw_server(tmp_path / "buckets")) as url:
        check_round_trip(f"{url}/node-a")
        check_boundary_bytes("s3://states/boundary", tmp_path)


@pytest.mark.slow
def test_a_denied_bucket_is_named(tmp_path: Path) -> None:
    """A server that checks signatures refuses a wrong secret: its own error, and nothing was stored."""
    (tmp_path / "buckets").mkdir()
    with s3_bucket(versitygw_server(tmp_path / "buckets")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")
        outcome = produce_node_a("s3://states/denied", "--json")
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "store_denied"), outcome.stderr
    assert "s3://states/denied" in outcome.error_line
    assert not [path for path in (tmp_path / "buckets").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_epoch_on_gcs(tmp_path: Path) -> None:
    """The server that speaks GCS's protocol."""
    with gcs_bucket() as url:
        check_round_trip(f"{url}/node-a")
        check_boundary_bytes("gs://states/boundary", tmp_path)


def produce_through_faults(patch: pytest.MonkeyPatch, url: str, seed: int, rate: float, retry: bool) -> tuple[Outcome, int]:
    """Produce node a into a store in memory that fails by seed; return the outcome and how many faults there were."""
    faulty: list[FaultyStore] = []
    schedule = seeded(seed, rate)

    def open_faulty(name: str) -> Store:
        if not faulty:
            faulty.append(FaultyStore(MemoryStore(name), schedule))
        policy = RetryPolicy(attempts_max=4, timeout_s=20, wait_first_s=0.001, wait_max_s=0.002, wait_jitter_s=0.001)
        return RetryingStore(faulty[0], policy) if retry else faulty[0]

    with patch.context() as while_faulty:
        while_faulty.setitem(OPENERS, url.removeprefix("memory://"), open_faulty)
        # A fault may keep a run from giving back its claim, and here all runs are of one living process.
        outcome = produce_node_a(url, "--num-parts", 5, "--json", "--ignore-claim")
    return outcome, len(faulty[0].injected)


def assert_published_like_undisturbed(url: str) -> None:
    """What is there is what an undisturbed run leaves, but for a claim or a probe that a fault kept from being given back."""
    there = {name: data for name, data in objects_at(url).items() if not name.endswith("/claim.json") and not name.startswith(PROBE_FOLDER)}
    expected = {name: (published_node_a() / name).read_bytes() for name in objects_in(published_node_a())}
    assert there.keys() == expected.keys()
    assert all(there[name] == expected[name] for name in expected if is_lasting(name))
    assert statecast("check", url, "--in-process").code == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_fails_now_and_then_is_retried(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Requests and replies are lost; with the retries that GCS and S3 have, one run is enough."""
    url = new_store_url()
    outcome, faults = produce_through_faults(monkeypatch, url, seed, rate=0.1, retry=True)
    assert outcome.code == 0, outcome.stderr
    assert faults > 3
    assert_published_like_undisturbed(url)


@pytest.mark.parametrize("seed", range(4))
def test_a_store_whose_faults_get_through_ends_in_its_error_and_a_rerun_goes_on(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Without retries every fault ends a run, with a typed error; runs are repeated until one comes through."""
    url = new_store_url()
    generator = random.Random(seed)
    codes = []
    for attempt in range(100):
        rate = 0.02 if attempt else 0.2
        outcome, _ = produce_through_faults(monkeypatch, url, generator.randrange(2**32), rate, retry=False)
        codes.append(outcome.code)
        if outcome.code == 0:
            break
        assert outcome.code in EXIT_CODES
        assert outcome.document["error"]["kind"] == "store_transient"
    assert codes[-1] == 0
    assert len(codes) > 1
    assert_published_like_undisturbed(url)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_tears_objects_is_found_out(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Half of an object under the name of success: never a manifest over it; it is mended at once, or by a rerun on a good store."""
    url = new_store_url()
    schedule = seeded(seed, 0.3, (Fault.TORN,))
    faulty: list[FaultyStore] = []

    def open_torn(name: str) -> Store:
        if not faulty:
            faulty.append(FaultyStore(MemoryStore(name), schedule))
        return faulty[0]

    with monkeypatch.context() as while_torn:
        while_torn.setitem(OPENERS, url.removeprefix("memory://"), open_torn)
        outcome = produce_node_a(url, "--num-parts", 5, "--json")
    assert any(fault is Fault.TORN for _, _, fault in faulty[0].injected)
    if outcome.code == 0:
        # No part was torn; a document that was read back and found torn is written again within the run.
        assert not any("/state_part_" in name for _, name, _ in faulty[0].injected)
    else:
        assert (outcome.code, outcome.document["error"]["kind"]) == (20, "object_mismatch")
        assert not any(name.endswith("manifest.json") for name in objects_at(url))
        assert produce_node_a(url, "--num-parts", 5).code == 0
    assert_published_like_undisturbed(url)
