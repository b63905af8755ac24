"""Serves seeded epochs in nearcore's own network, beside the torrents: stock nodes ask this peer for headers and parts.

An epoch is announced once all its shards lie verified here, headers too: an announcement can't be added to. What is announced is in files,
and goes from there to the socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.nearpeer.announcing import HostedEpoch
from pipelines.nearpeer.handshake import OwnSide
from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.request_policy import RequestLimits, Wanted
from pipelines.nearpeer.state_host import HostSettings, StateHost, StateObject
from pipelines.seeding.status import OnEvent, PeerStatus, SeedEvent, ServedShard, ShardKey
from schemas.address import Address
from schemas.errors import InvalidInputError, ManifestError, StatecastError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.state_response import RESPONSE_V3, RESPONSE_V4
from schemas.nearcore.state_header import prove_state_root
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard


@dataclass(frozen=True, slots=True)
class PeerServiceSettings:
    """How this peer stands in the network."""

    genesis_hash: CryptoHash
    listen: tuple[Address, ...]
    """One, or two of which each has a key of its own; the keys take epochs in turn."""
    peers: tuple[PeerUrl, ...] = ()
    """Nodes to connect to."""
    upload_bytes_per_s: int | None = None
    upload_bytes_per_s_each: int | None = None
    """To one node."""
    limits: RequestLimits = field(default_factory=RequestLimits)


@dataclass(frozen=True, slots=True)
class _HostedShard:
    listed: ManifestShard
    epoch_folder: Path
    header: Path
    header_bytes: int
    encoding: Encoding
    key: ShardKey


@dataclass(slots=True)
class _HostedFiles:
    """Where the files of announced shards lie."""

    shards: dict[tuple[CryptoHash, int], _HostedShard] = field(default_factory=dict)
    """By sync hash and shard id."""

    def find(self, epoch: HostedEpoch, shard_id: int, part_id: int | None) -> StateObject | None:
        """Return a part or header; see `HostedState`."""
        hosted = self.shards.get((epoch.sync_hash, shard_id))
        if hosted is None:
            return None
        version = RESPONSE_V3 if hosted.encoding is Encoding.V0 else RESPONSE_V4
        if part_id is None:
            # The first byte says which form a dumped header has; a response leaves it out.
            return StateObject(hosted.header, hosted.header_bytes - 1, 1, version)
        if part_id >= hosted.listed.num_parts:
            return None
        layout = hosted.key.layout
        name = layout.state_part(shard_id, PartId(part_id, hosted.listed.num_parts)).removeprefix(layout.folder + "/")
        return StateObject(hosted.epoch_folder / name, hosted.listed.parts[part_id].size, 0, version)


class PeerService:
    """A peer of nearcore's network in a thread of its own."""

    def __init__(self, chain_id: str, keys: Sequence[NodeKey], settings: PeerServiceSettings, on_event: OnEvent) -> None:
        """Listen, and call the nodes that are named.

        Raises:
            InvalidInputError: an address can't be listened on.
        """
        self._keys, self._settings, self._on_event = keys, settings, on_event
        self._files = _HostedFiles()
        self._announced: list[int] = []
        self._block_height: int | None = None
        self._served: dict[tuple[CryptoHash, int], set[int | None]] = {}
        genesis = GenesisId(chain_id, settings.genesis_hash)
        sides = [OwnSide(key, genesis, address.port) for key, address in zip(keys, settings.listen, strict=True)]
        self._loop = LoopThread()
        try:
            self._host, self.ports = self._loop.finish(self._start(sides))
        except OSError as error:
            self._loop.close()
            shown = ", ".join(map(str, settings.listen))
            raise InvalidInputError(problem=f"can't listen: {error.strerror}", where=f"--near-listen {shown}") from error
        except StatecastError:
            self._loop.close()
            raise

    async def _start(self, sides: list[OwnSide]) -> tuple[StateHost, list[int]]:
        peers = tuple([(url.peer_id, await url.resolve()) for url in self._settings.peers])
        own = self._settings
        settings = HostSettings(own.limits, own.upload_bytes_per_s, own.upload_bytes_per_s_each, peers)
        host = StateHost(sides, self._files, settings, self._note, sent=self._count)
        ports = await host.start([(address.host, address.port) for address in self._settings.listen])
        return host, ports

    def host_shard(self, key: ShardKey, manifest: Manifest, epoch_folder: Path, header: Path) -> None:
        """Take up a shard whose parts lie verified in a folder.

        Raises:
            ManifestError, IntegrityError: the header does not prove the shard's state root.
        """
        listed = manifest.shard(key.shard_id)
        assert listed is not None, "it is seeded"
        data = header.read_bytes()
        proven = prove_state_root(data, manifest.sync_hash, manifest.block_headers, str(header))
        if proven.chunk.prev_state_root != listed.state_root:
            raise ManifestError(problem="the state header proves another root than the manifest has", where=str(header))
        hosted = _HostedShard(listed, epoch_folder, header, len(data), manifest.encoding, key)
        self._served.setdefault((manifest.sync_hash, key.shard_id), set())
        self._files.shards[manifest.sync_hash, key.shard_id] = hosted

    def announce(self, manifest: Manifest, shard_ids: Sequence[int]) -> None:
        """Announce an epoch whose shards were all taken up; one that is announced already is left.

        Raises:
            ManifestError: the manifest has no block headers, which say what is announced.
        """
        if not manifest.block_headers:
            raise ManifestError(
                problem="the manifest has no block headers, so no node could ask for the epoch", where=str(manifest.epoch_id)
            )
        parent = decode_block_header(manifest.block_headers[1], "block header of the sync block's parent")
        epoch = HostedEpoch(manifest.epoch_height, parent.prev_hash, manifest.sync_hash, tuple(sorted(shard_ids)))
        if self._loop.finish(self._host.announce(epoch)):
            self._announced = [*self._announced, manifest.epoch_height][-len(self.ports) :]
            self._block_height = parent.height
            facts = {"epoch_height": epoch.epoch_height, "shards": list(epoch.shards)}
            self._on_event(SeedEvent("epoch_announced", f"epoch {epoch.epoch_height} to nearcore's network", facts))

    def forget(self, key: ShardKey) -> None:
        """Answer for a shard no more. Its announcement stays: nothing takes one back."""
        self._files.shards = {name: shard for name, shard in self._files.shards.items() if shard.key != key}
        self._served = {name: given for name, given in self._served.items() if name in self._files.shards}

    def urls(self) -> list[str]:
        """Return what nodes name in boot_nodes, and `near://` URLs after the scheme; the host is this machine's public one."""
        return [
            f"{key.peer_id}@{address.host or '0.0.0.0'}:{port}"
            for key, address, port in zip(self._keys, self._settings.listen, self.ports, strict=True)
        ]

    def status(self) -> PeerStatus:
        """Return how this peer stands; safe in any thread."""
        host = self._host
        return PeerStatus(
            ports=tuple(self.ports),
            neighbours=host.neighbours,
            announced_epochs=tuple(self._announced),
            requests=dict(host.policy.counted),
            messages=dict(host.messages),
            bytes_sent=host.bytes_sent,
            served=self._given(),
            block_height=self._block_height,
            requests_by_kind=dict(host.policy.counted_by_kind),
            askers=host.policy.askers,
            answers_up_to=host.answer_times.up_to(),
            answers_total_s=host.answer_times.total_s,
        )

    def _given(self) -> tuple[ServedShard, ...]:
        given = []
        for name, shard in list(self._files.shards.items()):
            objects = frozenset(self._served.get(name, ()))
            given.append(
                ServedShard(shard.key.epoch_height, shard.key.shard_id, None in objects, len(objects - {None}), shard.listed.num_parts)
            )
        return tuple(sorted(given, key=lambda shard: (-shard.epoch_height, shard.shard_id)))

    def _count(self, wanted: Wanted, sync_hash: CryptoHash) -> None:
        if (given := self._served.get((sync_hash, wanted.shard_id))) is not None:
            given.add(wanted.part_id)

    def close(self) -> None:
        """Say good-bye and stop."""
        self._loop.finish(self._host.close())
        self._loop.close()

    def _note(self, what: str, facts: dict[str, object]) -> None:
        self._on_event(SeedEvent("near_peer", event_words(what, facts), facts))


def event_words(what: str, facts: Mapping[str, object]) -> str:
    """Return what happened in one line; a request without a part is for the shard's header."""
    return f"{what}: " + ", ".join("header" if name == "part" and fact is None else f"{name} {fact}" for name, fact in facts.items())
