"""``statecast seed --near-listen``: seeded epochs in nearcore's own network, for nodes and for fetches."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from pipelines.nearpeer.announcing import host_holds
from pipelines.nearpeer.handshake import UNUSED_PORT, OwnSide
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_client import StateClient
from schemas.ids import PartId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from tests.jobs.test_seed import running_seeder
from tests.support.commands import statecast
from tests.support.fetches import parts_manifest, published_parts
from tests.support.peer_recordings import named_hash, named_key
from tests.support.published import public_key

pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

GENESIS = named_hash("genesis")
NEAR = ("--near-listen", "127.0.0.1:0,127.0.0.1:0", "--near-genesis", GENESIS, "--near-private")


def test_a_seeder_is_a_snapshot_host_of_nearcore_s_network(tmp_path: Path) -> None:
    """It announces the whole epoch with one of its two keys, and gives headers and parts as they are published; a fetch takes parts from it."""
    manifest = parts_manifest()
    layout = manifest.layout
    with running_seeder(published_parts(), tmp_path / "data", *NEAR) as seeder:
        urls = [PeerUrl.parse(f"near://{url}") for url in seeder.event("near_listening")["urls"]]
        announced = seeder.event("epoch_announced")
        url = urls[manifest.epoch_height % 2]
        host, header, part = asyncio.run(heard_and_got(url, manifest.chain_id))
        parent = decode_block_header(manifest.block_headers[1], "parent")
        assert host.announced_hash == parent.prev_hash, "two before the sync block"
        assert (host.epoch_height, list(host.shards)) == (announced["epoch_height"], announced["shards"])
        assert header == (published_parts() / layout.state_header(0)).read_bytes()[1:]
        assert part == (published_parts() / layout.state_part(0, PartId(2, 6))).read_bytes()
        bucket = tmp_path / "documents"
        shutil.copytree(published_parts(), bucket, ignore=lambda _, names: [name for name in names if name.startswith("state_part")])
        outcome = statecast(
            *("fetch", bucket, "--chain-id", manifest.chain_id, "--into", tmp_path / "into", "--trust-key", public_key(), "--no-lease"),
            *("--source", url, "--requests-per-second-per-source", 2, "--shard-id", 0),
        )
        assert outcome.code == 0, outcome.stderr
        assert seeder.stop() == 0
        assert [line.get("event") for line in seeder.lines()][-2:] == ["stopped", None]
    with running_seeder(published_parts(), tmp_path / "data", *NEAR) as again:
        assert [str(one.peer_id) for one in urls] == [url.partition("@")[0] for url in again.event("near_listening")["urls"]]


async def heard_and_got(url: PeerUrl, chain_id: str) -> tuple[SnapshotHost, bytes, bytes]:
    """Ask a seeder for a header and a part; return them with what it announces."""
    own = OwnSide(named_key("asker"), GenesisId(chain_id, GENESIS), UNUSED_PORT)
    client = await StateClient.open(own, url.peer_id, await url.resolve())
    try:
        await client.heard_hosts(20)
        host = client.hosts[url.peer_id]
        assert host_holds(host)
        sync_hash = parts_manifest().sync_hash
        header, part = await client.ask(0, sync_hash, None), await client.ask(0, sync_hash, 2)
        return host, bytes(header.header or b""), bytes(part.part or b"")
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--near-listen", "127.0.0.1:0"), "genesis hash of localnet is not known"),
        (("--near-private",), "need --near-listen"),
        (("--near-upload-limit", "1MB/s"), "needs --near-listen"),
        (("--near-listen", "127.0.0.1:0", "--near-upload-limit", "much"), "--near-upload-limit"),
        (("--near-listen", "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0"), "at most 2"),
        (("--near-listen", "nowhere"), "is no address"),
        (("--near-listen", "127.0.0.1:0", "--near-peer", "127.0.0.1:1"), "near://ed25519:KEY@host:port"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """Before anything is opened or brought."""
    outcome = statecast("seed", published_parts(), "--chain-id", "localnet", "--data", tmp_path / "data", "--insecure", *options)
    assert (outcome.code, said in outcome.stderr) == (2, True), outcome.stderr
