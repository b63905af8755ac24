"""``statecast seed`` as a process of its own, with stock clients in theirs."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.seed_display import SeedLineDisplay
from jobs.terminal import configure_logging
from pipelines.seeding.status import PeerStatus, SeedStatus, ShardKey, ShardPhase, ShardStatus
from schemas.published.object_layout import latest_name
from tests.support.commands import Outcome, epoch_folder, statecast, wait_until
from tests.support.json_process import WAIT_S, JsonProcess, running_client, running_command, running_mirror
from tests.support.published import public_key, published_localnet, signing_key
from tests.support.random_epochs import PART_SIZES, RandomEpoch, parts_in, publish_random_epoch
from tests.support.stored_epochs import CHAIN_ID, epoch_layout

pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

POLL_S = 0.2


def running_seeder(bucket: Path, data: Path, *options: object) -> AbstractContextManager[JsonProcess]:
    """Run a seeder that trusts the first key and looks at its bucket often."""
    trust = () if "--insecure" in options else ("--trust-key", public_key())
    return running_command("seed", bucket, "--data", data, "--listen", "127.0.0.1:0", "--poll-interval", POLL_S, *trust, *options)


def port_of(seeder: JsonProcess) -> int:
    """Return the port for peers."""
    port = seeder.event("listening")["port"]
    assert isinstance(port, int)
    return port


def bytes_uploaded(seeder: JsonProcess) -> int:
    """Ask a seeder how much it gave of its first shard; the library adds it up once a second."""
    with urllib.request.urlopen(f"http://127.0.0.1:{seeder.event('listening')['metrics_port']}/healthz") as answer:
        given = json.load(answer)["shards"][0]["bytes_uploaded"]
    assert isinstance(given, int)
    return given


def test_a_stock_client_gets_every_part_of_a_produced_epoch(tmp_path: Path) -> None:
    """Given the torrent file alone, or the magnet link alone, and the seeder's address: byte-identical parts, from the first client too."""
    bucket = published_localnet()
    epoch = epoch_folder(bucket)
    with running_seeder(bucket, tmp_path / "data", "--insecure") as seeder:
        magnets = {shard_id: seeder.event("shard_seeding", shard_id=shard_id)["magnet"] for shard_id in range(4)}
        seeder_address = f"127.0.0.1:{port_of(seeder)}"
        with running_client(
            tmp_path / "first", "--torrent", epoch / "torrents/shard_id=0.torrent", "--peer", seeder_address, "--seed"
        ) as first:
            first.event("done")
            with running_client(tmp_path / "second", "--magnet", magnets[1], with_utp=True) as second:
                second.event("done")
            first_address = f"127.0.0.1:{first.event('listening')['port']}"
            with running_client(
                tmp_path / "third", "--torrent", epoch / "torrents/shard_id=0.torrent", "--peer", first_address, "--peer", seeder_address
            ) as third:
                third.event("done")
        assert parts_in(tmp_path / "first/shard_id=0") == parts_in(epoch / "shard_id=0")
        assert parts_in(tmp_path / "second/shard_id=1") == parts_in(epoch / "shard_id=1")
        assert parts_in(tmp_path / "third/shard_id=0") == parts_in(epoch / "shard_id=0")
        assert seeder.stop() == 0


def test_a_web_seed_is_enough_and_helps_a_peer(tmp_path: Path) -> None:
    """The mirror alone, then mirror and seeder together, each time the same bytes."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    torrent = tmp_path / "bucket" / epoch.layout.torrent(0)
    with running_mirror(tmp_path / "bucket") as (mirror, url):
        web_seed = f"{url}/{epoch.layout.folder}/"
        with running_client(tmp_path / "web", "--torrent", torrent, "--web-seed", web_seed) as client:
            assert client.event("done")["received"] >= sum(PART_SIZES)
        assert parts_in(tmp_path / "web/shard_id=0") == epoch.parts()
        with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
            seeder.event("shard_seeding")
            peer = f"127.0.0.1:{port_of(seeder)}"
            with running_client(tmp_path / "both", "--torrent", torrent, "--web-seed", web_seed, "--peer", peer) as client:
                client.event("done")
        assert parts_in(tmp_path / "both/shard_id=0") == epoch.parts()
        assert {line["status"] for line in mirror.lines() if line["message_type"] == "request"} <= {200, 206}


def test_a_corrupted_web_seed_is_banned(tmp_path: Path) -> None:
    """A mirror with wrong bytes is found out by the piece hashes, and the peer brings the right ones."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    publish_random_epoch(tmp_path / "lies", seed=99)
    with running_mirror(tmp_path / "lies") as (mirror, url), running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        torrent = tmp_path / "bucket" / epoch.layout.torrent(0)
        web_seed = f"{url}/{epoch.layout.folder}/"
        with running_client(tmp_path / "into", "--torrent", torrent, "--web-seed", web_seed) as client:
            # Without a peer it can only get wrong bytes.
            client.event("banned")
            mirror.wait_for(lambda line: line.get("status") == 206)
        seeder.event("shard_seeding")
        peer = f"127.0.0.1:{port_of(seeder)}"
        with running_client(tmp_path / "into2", "--torrent", torrent, "--web-seed", web_seed, "--peer", peer) as client:
            client.event("done")
        assert parts_in(tmp_path / "into2/shard_id=0") == epoch.parts()


@pytest.mark.slow
def test_a_killed_seeder_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 in the middle of the download and again while seeding: no part that had its name is downloaded again."""
    sizes = [100_000] * 12
    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: sizes})
    published = epoch.parts()
    folder = tmp_path / "data" / epoch.layout.shard_folder(0)
    # Until after the first kill the last part is missing, so that the seeder can't have finished before.
    last = tmp_path / "bucket" / epoch.layout.shard_folder(0) / sorted(published)[-1]
    last.rename(tmp_path / last.name)
    with running_seeder(tmp_path / "bucket", tmp_path / "data", "--downloads", 1, "--download-limit", "400kB") as seeder:
        wait_until(lambda: len(list(folder.glob("state_part_*"))) >= 3, WAIT_S)
        seeder.kill()
    kept = parts_in(folder)
    assert 3 <= len(kept) < len(sizes)
    assert all(published[name] == data for name, data in kept.items())
    (tmp_path / last.name).rename(last)
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        seeder.event("shard_seeding")
        status = seeder.wait_for(lambda line: line["message_type"] == "status" and line["complete"])
        assert status["shards"][0]["bytes_downloaded"] == (len(sizes) - len(kept)) * sizes[0]
        with running_client(
            tmp_path / "first", "--torrent", tmp_path / "bucket" / epoch.layout.torrent(0), "--peer", f"127.0.0.1:{port_of(seeder)}"
        ) as client:
            client.event("done")
        seeder.kill()
    # The bucket is gone: what is here is seeded all the same.
    (tmp_path / "bucket").rename(tmp_path / "away")
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        peer = f"127.0.0.1:{port_of(seeder)}"
        torrent = tmp_path / "away" / epoch.layout.torrent(0)
        with running_client(tmp_path / "second", "--torrent", torrent, "--peer", peer) as client:
            client.event("done")
        assert parts_in(tmp_path / "second/shard_id=0") == published
        assert seeder.stop() == 0
        assert seeder.lines()[-1]["shards"][0]["bytes_downloaded"] == 0


@pytest.mark.slow
def test_resume_data_survives_a_restart(tmp_path: Path) -> None:
    """What was given to peers is counted on after a clean stop."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    torrent = tmp_path / "bucket" / epoch.layout.torrent(0)
    with running_seeder(tmp_path / "bucket", tmp_path / "data", "--metrics", "127.0.0.1:0") as seeder:
        seeder.event("shard_seeding")
        with running_client(tmp_path / "into", "--torrent", torrent, "--peer", f"127.0.0.1:{port_of(seeder)}") as client:
            client.event("done")
        wait_until(lambda: bytes_uploaded(seeder) >= sum(PART_SIZES), WAIT_S)
        assert seeder.stop(signal.SIGINT) == 0
    given = seeder.lines()[-1]["shards"][0]["bytes_uploaded"]
    assert given >= sum(PART_SIZES)
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        seeder.event("shard_seeding")
        status = seeder.wait_for(lambda line: line["message_type"] == "status" and line["complete"])
        assert status["shards"][0]["bytes_uploaded"] >= given


def test_the_epoch_before_stays_until_the_new_one_is_here(tmp_path: Path) -> None:
    """With one epoch kept: a new one is found by polling, the old one is dropped when it is whole, and its files are gone."""
    bucket, data = tmp_path / "bucket", tmp_path / "data"
    first = publish_random_epoch(bucket, 1)
    with running_seeder(bucket, data, "--epochs", 1) as seeder:
        seeder.event("shard_seeding", epoch_height=1)
        # A part of the next epoch is missing from the beginning: it can't become whole.
        second = publish_random_epoch(tmp_path / "next", 2)
        lacking = next((second.bucket / second.layout.shard_folder(0)).iterdir())
        held_back = lacking.rename(tmp_path / lacking.name)
        move_into(bucket, second)
        seeder.event("shard_failed", epoch_height=2)
        assert parts_in(data / first.layout.shard_folder(0)) == first.parts()
        held_back.rename(bucket / lacking.relative_to(second.bucket))
        seeder.event("shard_seeding", epoch_height=2)
        seeder.event("epoch_dropped", epoch_height=1)
        wait_until(lambda: not (data / first.layout.folder).exists(), WAIT_S)
        assert parts_in(data / second.layout.shard_folder(0)) == parts_in(bucket / second.layout.shard_folder(0))
        assert len(parts_in(data / second.layout.shard_folder(0))) == len(PART_SIZES)
        assert seeder.stop() == 0
    assert [shard["epoch_height"] for shard in seeder.lines()[-1]["shards"]] == [2]


def move_into(bucket: Path, epoch: RandomEpoch) -> None:
    """Move an epoch that was published elsewhere, and then its pointer: a reader sees all of it, or nothing."""
    folder = bucket / epoch.layout.folder
    folder.parent.mkdir()
    epoch.folder.rename(folder)
    name = latest_name(epoch.layout.chain_id)
    (epoch.bucket / name).rename(bucket / name)


@pytest.mark.slow
def test_equal_shards_of_two_epochs_are_one_torrent(tmp_path: Path) -> None:
    """A shard that has not changed has the same torrent in both epochs; when the older epoch goes, the newer one's files are seeded."""
    bucket, data = tmp_path / "bucket", tmp_path / "data"
    publish_random_epoch(bucket, 1, seed=7)
    with running_seeder(bucket, data, "--epochs", 1, "--metrics", "127.0.0.1:0") as seeder:
        seeder.event("shard_seeding", epoch_height=1)
        second = publish_random_epoch(bucket, 2, seed=7)
        seeder.event("epoch_dropped", epoch_height=1)
        torrent = bucket / second.layout.torrent(0)
        with running_client(tmp_path / "into", "--torrent", torrent, "--peer", f"127.0.0.1:{port_of(seeder)}") as client:
            client.event("done")
        assert parts_in(tmp_path / "into/shard_id=0") == second.parts()
        wait_until(lambda: bytes_uploaded(seeder) >= sum(PART_SIZES), WAIT_S)


def test_a_torrent_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    """Another torrent under the published name is not seeded; nothing of it reaches the folder."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    other = publish_random_epoch(tmp_path / "other", seed=5)
    (tmp_path / "bucket" / epoch.layout.torrent(0)).write_bytes(other.torrent())
    outcome = statecast(
        "seed", tmp_path / "bucket", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--once", "--trust-key", public_key()
    )
    assert outcome.code == 3
    assert "info hashes" in outcome.error_line
    assert not list((tmp_path / "data").rglob("state_part_*"))
    assert not list((tmp_path / "data").rglob("*.torrent"))


def test_a_part_with_other_bytes_gets_no_name(tmp_path: Path) -> None:
    """The bucket's lie is found by its digest; the parts that are right are kept."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    path = tmp_path / "bucket" / epoch.layout.shard_folder(0) / "state_part_000002_of_000005"
    data = bytearray(path.read_bytes())
    data[40_000] ^= 1
    path.write_bytes(data)
    outcome = statecast(
        "seed", tmp_path / "bucket", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--once", "--trust-key", public_key()
    )
    assert outcome.code == 3
    assert "state_part_000002_of_000005" in outcome.error_line
    brought = parts_in(tmp_path / "data" / epoch.layout.shard_folder(0))
    assert path.name not in brought
    assert all(epoch.parts()[name] == part for name, part in brought.items())


def test_a_manifest_that_no_trusted_key_signed_is_not_seeded(tmp_path: Path) -> None:
    """Nothing of the epoch is brought here."""
    publish_random_epoch(tmp_path / "bucket", key="first")
    signing_key("second")
    outcome = statecast(
        "seed", tmp_path / "bucket", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--once", "--trust-key", public_key("second")
    )
    assert outcome.code == 3
    assert "signed" in outcome.error_line
    assert not list((tmp_path / "data").rglob("state_part_*"))


def test_an_idle_seeder_logs_a_shard_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And again when something of it changes."""
    configure_logging()
    monkeypatch.setattr("jobs.terminal.LINE_INTERVAL_S", 0.0)
    display = SeedLineDisplay()
    shard = ShardStatus(ShardKey(epoch_layout(1), 0), ShardPhase.SEEDING, 5, 80_000)
    status = SeedStatus(CHAIN_ID, 6881, (shard,), polled_at=None, poll_problem="", pieces_refused=0)
    for shown in (status, status, status, replace(status, shards=(replace(shard, peers=1),))):
        display.status(shown)
    assert capsys.readouterr().err.count("shard=0") == 2


def test_what_nodes_ask_for_is_a_line_that_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is connected and asks, what was given, and why the rest was not."""
    configure_logging()
    monkeypatch.setattr("jobs.terminal.LINE_INTERVAL_S", 0.0)
    display = SeedLineDisplay()
    requests = {("header", "answered"): 2, ("part", "answered"): 9, ("part", "not announced"): 3, ("header", "not announced"): 1}
    peer = PeerStatus((24567,), 4, (7,), {}, {}, 3_000_000, requests_by_kind=requests, askers=2)
    status = SeedStatus(CHAIN_ID, 6881, (), None, "", 0, peer)
    for shown in (status, status, replace(status, near_peer=replace(peer, askers=3))):
        display.status(shown)
    (first, second) = [line for line in capsys.readouterr().err.splitlines() if "nodes" in line]
    assert all(said in first for said in ("connected=4", "asking=2", "headers=2", "parts=9", "not_announced=4", "given=")), first
    assert "asking=3" in second


def seed_once(bucket: Path, data: Path, *options: object) -> Outcome:
    """Bring a bucket's epochs here in this process, and end."""
    return statecast("seed", bucket, "--data", data, "--listen", "127.0.0.1:0", "--once", "--trust-key", public_key(), *options)


def test_an_older_revision_is_not_followed(tmp_path: Path) -> None:
    """What was accepted is remembered over restarts: a bucket that goes back is refused and what is here stays."""
    publish_random_epoch(tmp_path / "bucket", revision=2)
    assert seed_once(tmp_path / "bucket", tmp_path / "data").code == 0
    publish_random_epoch(tmp_path / "bucket", revision=1)
    outcome = seed_once(tmp_path / "bucket", tmp_path / "data", "--events", "-")
    refused = [line for line in map(json.loads, outcome.stdout.splitlines()) if line.get("event") == "manifest_refused"]
    assert "revision 2 was seen before" in refused[0]["problem"]
    assert len(list((tmp_path / "data").rglob("state_part_*"))) == len(PART_SIZES)


def test_a_memory_of_before_signers_is_left_and_said(tmp_path: Path) -> None:
    """It counts for nothing; what is here says again who signed it, so that a bucket that goes back is refused all the same."""
    epoch = publish_random_epoch(tmp_path / "bucket", revision=2)
    assert seed_once(tmp_path / "bucket", tmp_path / "data").code == 0
    (memory,) = (tmp_path / "data").rglob("accepted.json")
    memory.write_text(f'{{"chain_id":"{epoch.layout.chain_id}","epochs":[],"format":"urn:statecast:accepted:v1"}}')
    publish_random_epoch(tmp_path / "bucket", revision=1)
    outcome = seed_once(tmp_path / "bucket", tmp_path / "data", "--events", "-")
    events = [json.loads(line).get("event") for line in outcome.stdout.splitlines()]
    assert [event for event in events if event in ("memory_ignored", "manifest_refused")] == ["memory_ignored", "manifest_refused"]


def test_a_new_revision_is_taken_up(tmp_path: Path) -> None:
    """A shard that was added later comes too, and nothing else is downloaded again."""
    publish_random_epoch(tmp_path / "bucket", shards={0: [70_000]})
    assert seed_once(tmp_path / "bucket", tmp_path / "data").code == 0
    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: [70_000], 1: [80_000]}, revision=2)
    outcome = seed_once(tmp_path / "bucket", tmp_path / "data", "--events", "-")
    assert outcome.code == 0, outcome.stderr
    summary = json.loads(outcome.stdout.splitlines()[-1])
    assert [shard["bytes_downloaded"] for shard in summary["shards"]] == [0, 80_000]
    assert parts_in(tmp_path / "data" / epoch.layout.shard_folder(1)) == epoch.parts(1)


def test_a_deletion_that_was_killed_is_finished(tmp_path: Path) -> None:
    """An epoch's folder without its manifest is what a killed deletion leaves, and half a part what a killed download does."""
    epoch = publish_random_epoch(tmp_path / "bucket", 2)
    assert seed_once(tmp_path / "bucket", tmp_path / "data").code == 0
    old = tmp_path / "data" / replace(epoch.layout, epoch_height=1).shard_folder(0) / "state_part_000000_of_000001"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    half = tmp_path / "data" / ".seed" / "tmp" / "half"
    half.write_bytes(b"half")
    assert seed_once(tmp_path / "bucket", tmp_path / "data").code == 0
    assert not old.exists()
    assert not half.exists()
    assert parts_in(tmp_path / "data" / epoch.layout.shard_folder(0)) == epoch.parts()


def test_a_seeder_calls_named_peers(tmp_path: Path) -> None:
    """A client that knows no peer is found by the seeder that was given its address."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    with running_client(tmp_path / "into", "--torrent", tmp_path / "bucket" / epoch.layout.torrent(0)) as client:
        peer = f"127.0.0.1:{client.event('listening')['port']}"
        with running_seeder(tmp_path / "bucket", tmp_path / "data", "--peer", peer):
            client.event("done")
    assert parts_in(tmp_path / "into/shard_id=0") == epoch.parts()


def test_local_files_are_seeded_in_place(tmp_path: Path) -> None:
    """No byte is copied, and nothing is written into the folder."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bucket").rglob("*")}
    with running_seeder(tmp_path / "bucket", tmp_path / "data", "--local", tmp_path / "bucket") as seeder:
        assert seeder.event("shard_seeding")["in_place"] is True
        torrent = tmp_path / "bucket" / epoch.layout.torrent(0)
        with running_client(tmp_path / "into", "--torrent", torrent, "--peer", f"127.0.0.1:{port_of(seeder)}") as client:
            client.event("done")
        assert parts_in(tmp_path / "into/shard_id=0") == epoch.parts()
        assert seeder.stop() == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bucket").rglob("*")} == before
    assert not list((tmp_path / "data").rglob("state_part_*"))


def test_a_part_that_changes_on_the_disk_is_found_and_mended(tmp_path: Path) -> None:
    """A changed byte is never given away: the part is read again from the bucket."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    torrent = tmp_path / "bucket" / epoch.layout.torrent(0)
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        seeder.event("shard_seeding")
        path = tmp_path / "data" / epoch.layout.shard_folder(0) / "state_part_000000_of_000005"
        with open(path, "r+b") as file:
            file.seek(1000)
            file.write(b"rotten")
        with running_client(tmp_path / "into", "--torrent", torrent, "--peer", f"127.0.0.1:{port_of(seeder)}") as client:
            seeder.event("shard_failed")
            client.event("done")
        assert parts_in(tmp_path / "into/shard_id=0") == epoch.parts()
        assert parts_in(path.parent) == epoch.parts()


def test_one_shard_can_be_chosen(tmp_path: Path) -> None:
    """The others are not brought here."""
    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: [1000], 3: [2000, 50]})
    outcome = statecast(
        *("seed", tmp_path / "bucket", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--once", "--shard-id", 3),
        *("--trust-key", public_key()),
    )
    assert outcome.code == 0, outcome.stderr
    assert parts_in(tmp_path / "data" / epoch.layout.shard_folder(3)) == epoch.parts(3)
    assert not (tmp_path / "data" / epoch.layout.shard_folder(0)).exists()


def test_health_and_metrics_say_how_it_stands(tmp_path: Path) -> None:
    """One small HTTP server has both; anything else is not found."""
    publish_random_epoch(tmp_path / "bucket", 9)
    with running_seeder(tmp_path / "bucket", tmp_path / "data", "--metrics", "127.0.0.1:0") as seeder:
        base = f"http://127.0.0.1:{seeder.event('listening')['metrics_port']}"
        seeder.wait_for(lambda line: line["message_type"] == "status" and line["complete"])
        with urllib.request.urlopen(f"{base}/healthz") as answer:
            health = json.load(answer)
        assert (health["status"], health["complete"]) == ("ok", True)
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            scraped = answer.read().decode()
        labels = 'chain_id="testnet",epoch_height="9",shard_id="0"'
        assert f"statecast_seed_parts_complete{{{labels}}} {float(len(PART_SIZES))}" in scraped
        assert f"statecast_seed_downloaded_bytes_total{{{labels}}} {float(sum(PART_SIZES))}" in scraped
        assert "statecast_seed_poll_failing 0.0" in scraped
        with pytest.raises(urllib.error.HTTPError, match="404") as raised:
            urllib.request.urlopen(f"{base}/anything")
        raised.value.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "whose manifests to believe"),
        (("--insecure", "--trust-key", "ed25519:x"), "excludes"),
        (("--insecure", "--listen", "nowhere"), "no address"),
        (("--insecure", "--upload-limit", "much"), "number of bytes"),
        (("--insecure", "--connections", "0"), "connections lie between"),
        (("--insecure", "--poll-interval", "0"), "not a duration"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: tuple[str, ...], problem: str) -> None:
    """Before anything is brought here, with the exit code of wrong usage."""
    publish_random_epoch(tmp_path / "bucket")
    outcome = statecast("seed", tmp_path / "bucket", "--data", tmp_path / "data", *options)
    assert outcome.code == 2
    assert problem in outcome.error_line


def test_a_folder_with_other_things_in_it_is_not_taken(tmp_path: Path) -> None:
    """A seeder deletes old epochs, so its folder must be its own; a producer's output would be lost."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    outcome = statecast("seed", tmp_path / "bucket", "--data", tmp_path / "bucket", "--insecure", "--listen", "127.0.0.1:0", "--once")
    assert outcome.code == 2
    assert "not a seeder's" in outcome.error_line
    assert len(epoch.parts()) == len(PART_SIZES)


def test_two_seeders_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one gets an error."""
    publish_random_epoch(tmp_path / "bucket")
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        seeder.event("shard_seeding")
        outcome = statecast("seed", tmp_path / "bucket", "--data", tmp_path / "data", "--insecure", "--listen", "127.0.0.1:0", "--once")
        assert outcome.code == 2
        assert "another seeder" in outcome.error_line


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """No other port is taken in its place: peers would not find it."""
    publish_random_epoch(tmp_path / "bucket")
    with running_seeder(tmp_path / "bucket", tmp_path / "data") as seeder:
        outcome = statecast(
            *("seed", tmp_path / "bucket", "--data", tmp_path / "data2", "--insecure"),
            *("--listen", f"127.0.0.1:{port_of(seeder)}", "--once"),
        )
        assert outcome.code == 2
        assert "can listen there" in outcome.error_line


def test_a_bucket_without_a_chain_is_an_error(tmp_path: Path) -> None:
    """Most likely a wrong URL."""
    (tmp_path / "bucket").mkdir()
    outcome = statecast("seed", tmp_path / "bucket", "--data", tmp_path / "data", "--insecure", "--listen", "127.0.0.1:0", "--once")
    assert outcome.code == 11
    assert "no chain" in outcome.error_line


def test_a_plan_says_what_would_be_brought_and_writes_nothing(tmp_path: Path) -> None:
    """Whole parts, where no older epoch is here."""
    epoch = publish_random_epoch(tmp_path / "bucket")
    call = ("seed", tmp_path / "bucket", "--data", tmp_path / "data", "--insecure", "--plan")
    document = statecast(*call, "--json").document
    assert document["bytes"] == sum(PART_SIZES)
    (shard,) = document["shards"]
    assert (shard["epoch_height"], shard["parts"], shard["parts_here"]) == (epoch.layout.epoch_height, len(PART_SIZES), 0)
    assert shard["rebuilt_from"] is None
    assert "whole parts" in statecast(*call).stdout
    assert not (tmp_path / "data").exists()
