"""A stand-in of a new node, as far as its peers see it: it shakes hands, asks for headers, then for parts, and comes to the head.

It keeps to what nearcore does (`chain/client/src/sync/state/{network,downloader,shard}.rs`): ten questions at once and six a shard, an
answer awaited for 10 s with dial and transfer, 1 s pause after a failure, parts in any order, headers until one is there, tier 3 taken from
peers that were asked alone, its own public address as the first peer says that names it. Its chain is what the test says.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection, accept
from pipelines.nearpeer.handshake import ListenerHandshake, OwnSide
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.routing import Router
from schemas.errors import StatecastError
from schemas.ids import CryptoHash, base58_encode
from schemas.nearcore.peer.edge import PeerEdge
from schemas.nearcore.peer.identity import PeerAddress, PeerId
from schemas.nearcore.peer.peer_message import (
    GenesisId,
    PeerMessage,
    PeersRequest,
    PeersResponse,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Tier,
)
from schemas.nearcore.peer.routed_message import AckKind, StateRequest, StateRequestAck, read_routed_body
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from schemas.nearcore.peer.state_response import StateResponse
from tests.support.peer_recordings import named_hash, named_key

LOOPBACK = "127.0.0.1"
OUTSTANDING_MAX = 10
PER_SHARD_MAX = 6
ANSWER_TIMEOUT_S = 10.0
PAUSE_S = 1.0

Object = tuple[int, int | None]
"""Shard and part; None for the header."""


@dataclass(frozen=True)
class NextEpoch:
    """The epoch that a node asks for when it has the state of the one before, since its chain has come so far meanwhile."""

    sync_hash: CryptoHash
    announced_hash: CryptoHash
    num_parts: dict[int, int]
    head_height: int


@dataclass
class NewNode:
    """A node's chain, its home and what came of its state sync."""

    home: Path
    chain_id: str
    sync_hash: CryptoHash
    announced_hash: CryptoHash
    num_parts: dict[int, int]
    """By shard."""
    head_height: int
    key: NodeKey = field(default_factory=lambda: named_key("new node"))
    genesis: CryptoHash = field(default_factory=lambda: named_hash("genesis"))
    got: dict[Object, bytes] = field(default_factory=dict)
    next_epoch: NextEpoch | None = None
    got_before: dict[Object, bytes] = field(default_factory=dict)
    """Of the epoch before the next one."""
    may_end: threading.Event | None = None
    """The last part is not asked for before."""
    asked: list[Object] = field(default_factory=list)
    busy: int = 0
    tiers: set[Tier] = field(default_factory=set)
    """On which answers came."""
    block_height: int = 0
    is_syncing: bool = True
    port: int = 0
    rpc_port: int = 0

    def write_home(self, **network: Any) -> None:
        """Write the files that neard's init writes, as far as others read them."""
        self.home.mkdir(parents=True, exist_ok=True)
        config = {
            "genesis_file": "genesis.json",
            "node_key_file": "node_key.json",
            "rpc": {"addr": f"0.0.0.0:{self.rpc_port}", "limits_config": {"json_payload_max_size": 10485760}},
            "network": {
                "addr": f"0.0.0.0:{self.port}",
                "boot_nodes": "",
                "experimental": {"inbound_disabled": False, "skip_sending_tombstones_seconds": 0},
                **network,
            },
            "tracked_shards_config": "AllShards",
            "gc_num_epochs_to_keep": 5,
            "expected_shutdown": None,
        }
        (self.home / "config.json").write_text(json.dumps(config, indent=2))
        (self.home / "genesis.json").write_text(json.dumps({"protocol_version": 80, "chain_id": self.chain_id, "records": []}))
        secret = "ed25519:" + base58_encode(self.key.seed() + self.key.peer_id.key)
        key = {"account_id": "node", "public_key": str(self.key.peer_id), "secret_key": secret}
        (self.home / "node_key.json").write_text(json.dumps(key))

    @property
    def wanted(self) -> list[Object]:
        """All headers and parts."""
        return [(shard, part) for shard, count in self.num_parts.items() for part in (None, *range(count))]


class _Peers:
    """The node's connections and its questions."""

    def __init__(self, node: NewNode) -> None:
        self.node = node
        self.own = OwnSide(node.key, GenesisId(node.chain_id, node.genesis), node.port)
        self.router = Router(node.key)
        self.hosts: dict[PeerId, SnapshotHost] = {}
        self.neighbours: dict[PeerId, Connection] = {}
        self.waiting: dict[Object, asyncio.Future[bytes]] = {}
        self.asked_ids: set[PeerId] = set()
        self.edges: dict[PeerId, PeerEdge] = {}
        self.public_address: PeerAddress | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection of either tier."""
        connection = Connection(reader, writer)
        try:
            handshake = ListenerHandshake(self.own, self.edges, frozenset(self.asked_ids))
            connected = await accept(connection, handshake, time.time)
            peer = connected.peer_id
            if connected.tier is Tier.T2:
                self.edges[peer] = connected.edge
                self.neighbours[peer] = connection
                greeting: tuple[PeerMessage, ...] = (RoutingTableUpdate((connected.edge,)), SyncSnapshotHosts(()), PeersRequest(512, 128))
                for said in greeting:
                    await connection.send(said)
            while (message := await connection.read_message(STATE_BYTES_MAX)) is not None:
                self.heard(message, peer, connected.tier)
        except StatecastError:
            pass
        finally:
            connection.abort()

    def heard(self, message: PeerMessage, peer: PeerId, tier: Tier) -> None:
        """Take a message."""
        match message:
            case SyncSnapshotHosts():
                self.hosts |= {host.peer_id: host for host in message.hosts}
            case PeersResponse():
                named = [one.address for one in message.direct_peers if one.peer_id == self.node.key.peer_id]
                self.public_address = self.public_address or (named[0] if named else None)
            case Routed():
                ack = read_routed_body(message.message.body)
                waiting = self.waiting.get((ack.shard_id, ack.part_id)) if isinstance(ack, StateRequestAck) else None
                if isinstance(ack, StateRequestAck) and ack.kind is AckKind.BUSY and waiting is not None and not waiting.done():
                    self.node.busy += 1
                    waiting.set_exception(TimeoutError())
            case StateResponse():
                data = message.header if message.header is not None else message.part
                waiting = self.waiting.get((message.shard_id, None if message.header is not None else message.part_id))
                if waiting is not None and not waiting.done() and peer in self.asked_ids and data is not None:
                    self.node.tiers.add(tier)
                    waiting.set_result(bytes(data))
            case _:
                pass

    async def sync(self) -> None:
        """Headers of all shards, then parts, then the head."""
        at_once = asyncio.Semaphore(OUTSTANDING_MAX)
        each = {shard: asyncio.Semaphore(PER_SHARD_MAX) for shard in self.node.num_parts}

        async def get(wanted: Object) -> None:
            while self.node.may_end is not None and wanted == self.node.wanted[-1] and not self.node.may_end.is_set():
                await asyncio.sleep(0.02)
            while True:
                async with at_once, each[wanted[0]]:
                    with suppress(TimeoutError, StatecastError):
                        self.node.got[wanted] = await self.ask(wanted)
                        return
                await asyncio.sleep(PAUSE_S)

        async def get_all() -> None:
            for headers in (True, False):
                round_of = [get(wanted) for wanted in self.node.wanted if (wanted[1] is None) is headers]
                Random(7).shuffle(round_of)
                await asyncio.gather(*round_of)

        await get_all()
        if (epoch := self.node.next_epoch) is not None:
            self.node.got_before, self.node.got = self.node.got, {}
            self.node.sync_hash, self.node.announced_hash = epoch.sync_hash, epoch.announced_hash
            self.node.num_parts, self.node.head_height = epoch.num_parts, epoch.head_height
            await get_all()
        self.node.block_height = self.node.head_height - 1
        await asyncio.sleep(0.5)
        self.node.block_height, self.node.is_syncing = self.node.head_height, False

    async def ask(self, wanted: Object) -> bytes:
        """Send a routed question to a host that announced the shard, and wait for its answer."""
        shard, part = wanted
        hosts = [one for one in self.hosts.values() if one.announced_hash == self.node.announced_hash and shard in one.shards]
        host = next((one.peer_id for one in hosts if one.peer_id in self.neighbours), None)
        if host is None or self.public_address is None:
            raise TimeoutError
        self.node.asked.append(wanted)
        self.asked_ids.add(host)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting[wanted] = answer
        body = StateRequest(shard, self.node.sync_hash, part, self.public_address).to_bytes()
        await self.neighbours[host].send(Routed(self.router.make(host, body, time.time())))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await answer


@contextmanager
def running_node(node: NewNode) -> Iterator[NewNode]:
    """Run a node with its peers' port and its JSON-RPC on loopback; its home is written before."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    rpc = _rpc_server(node)
    threading.Thread(target=rpc.serve_forever, daemon=True).start()

    async def start() -> tuple[asyncio.Server, _Peers, asyncio.Task[None]]:
        peers = _Peers(node)
        server = await asyncio.start_server(peers.accepted, LOOPBACK, node.port)
        node.port = server.sockets[0].getsockname()[1]
        peers.own = OwnSide(node.key, peers.own.genesis, node.port)
        return server, peers, asyncio.create_task(peers.sync())

    async def stop(server: asyncio.Server, task: asyncio.Task[None]) -> None:
        server.close()
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def finish(work: Awaitable[Any] | Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)  # type: ignore[arg-type]

    server, _, task = finish(start())
    node.rpc_port = rpc.server_address[1]
    node.write_home()
    try:
        yield node
    finally:
        finish(stop(server, task))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        rpc.shutdown()
        rpc.server_close()


def _rpc_server(node: NewNode) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            sync = {"latest_block_height": node.block_height, "syncing": node.is_syncing}
            result = {"chain_id": node.chain_id, "sync_info": sync, "genesis_hash": str(node.genesis)}
            body = json.dumps({"jsonrpc": "2.0", "id": "statecast", "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return ThreadingHTTPServer((LOOPBACK, node.rpc_port), Handler)
