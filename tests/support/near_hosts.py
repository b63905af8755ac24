"""Hosts in nearcore's network that serve a published folder, in a thread of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.nearpeer.announcing import HostedEpoch
from pipelines.nearpeer.handshake import OwnSide
from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.state_host import HostSettings, StateHost, StateObject
from schemas.ids import PartId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.state_response import RESPONSE_V3, RESPONSE_V4
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from tests.support.peer_recordings import named_hash, named_key

GENEROUS = HostSettings(RequestLimits(private_addresses=True, under_way_max=1000, per_s_max=1000))


@dataclass(frozen=True)
class PublishedState:
    """The parts of a published folder; as they lie there, or as a function makes them."""

    folder: Path
    manifest: Manifest
    scratch: Path
    change: Callable[[bytes], bytes] | None = None
    version: int | None = None

    def find(self, epoch: HostedEpoch, shard_id: int, part_id: int | None) -> StateObject | None:
        """Find a part or a header."""
        listed = {shard.shard_uid.shard_id: shard for shard in self.manifest.shards}
        layout = self.manifest.layout
        if part_id is None:
            header = self.folder / layout.state_header(shard_id)
            return StateObject(header, header.stat().st_size - 1, 1, RESPONSE_V4)
        if shard_id not in listed or part_id >= listed[shard_id].num_parts:
            return None
        file = self.folder / layout.state_part(shard_id, PartId(part_id, listed[shard_id].num_parts))
        if self.change is not None:
            changed = self.scratch / f"{shard_id}-{part_id}"
            changed.write_bytes(self.change(file.read_bytes()))
            file = changed
        version = self.version or (RESPONSE_V3 if self.manifest.encoding is Encoding.V0 else RESPONSE_V4)
        return StateObject(file, file.stat().st_size, 0, version)


@contextmanager
def host_behind_transit(state: PublishedState) -> Iterator[tuple[str, str]]:
    """Run a host and one that passes messages on to it; give the host's URL with a port where nobody listens, and the other's URL."""
    with near_host(state, name="transit", announces=False) as transit:
        peer = PeerUrl.parse(transit)
        dials = replace(GENEROUS, peers=((peer.peer_id, PeerAddress.of(peer.address.host, peer.address.port)),))
        with near_host(state, dials) as url:
            yield f"{url.rpartition(':')[0]}:9", transit


@contextmanager
def near_host(
    state: PublishedState,
    settings: HostSettings = GENEROUS,
    name: str = "host",
    shards: tuple[int, ...] = (),
    *,
    announces: bool = True,
) -> Iterator[str]:
    """Run a host that has announced some or all shards of the published epoch, or nothing; give its URL."""
    manifest = state.manifest
    chain = GenesisId(manifest.chain_id, named_hash("genesis"))
    shards = shards or tuple(sorted(shard.shard_uid.shard_id for shard in manifest.shards))
    announced = decode_block_header(manifest.block_headers[1], "parent").prev_hash
    epoch = HostedEpoch(manifest.epoch_height, announced, manifest.sync_hash, shards)
    key = named_key(name)
    loop = LoopThread()

    async def start() -> tuple[StateHost, int]:
        host = StateHost([OwnSide(key, chain, 24567)], state, settings, lambda *_: None)
        (port,) = await host.start([("127.0.0.1", 0)])
        if announces:
            await host.announce(epoch)
        return host, port

    host, port = loop.finish(start())
    try:
        yield f"near://{key.peer_id}@127.0.0.1:{port}"
    finally:
        loop.finish(host.close())
        loop.close()
