"""A new node on this machine, as its home says what it is, and as it answers while it runs. Reads; changes nothing."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipelines.near.epoch.rpc_client import RpcClient, RpcLimits
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_home import read_node_config
from pipelines.nearpeer.connection import dial
from pipelines.nearpeer.handshake import UNUSED_PORT, DialerHandshake, OwnSide
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.stores.regular_file import read_regular
from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError, SourceError, StatecastError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.peer.identity import PeerId
from schemas.nearcore.peer.peer_message import GenesisId, Tier

CONFIG_NAME: Final = "config.json"
KEY_BYTES_MAX: Final = 1 << 16
_EVERY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_QUICK: Final = RpcLimits(timeout_s=2.0, requests_per_s=100.0, attempts_max=1, answer_bytes_max=1 << 20)


@dataclass(frozen=True, slots=True)
class AssistedNode:
    """What a node's home says."""

    home: Path
    chain_id: str
    peer_id: PeerId
    address: Address
    """Where it takes peers, as it is reached from this machine."""
    rpc: Address | None
    """None where it answers no JSON-RPC."""
    shard_ids: tuple[int, ...]
    """That it will track; empty for all, or where only its chain can tell."""
    warnings: tuple[str, ...]
    """Why it may not ask its peers for state, in sentences."""

    @property
    def config_file(self) -> Path:
        """Its config.json."""
        return self.home / CONFIG_NAME

    @property
    def url(self) -> PeerUrl:
        """Its name as a peer."""
        return PeerUrl(self.peer_id, self.address)


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a running node says of itself."""

    block_height: int
    """Of its newest block."""
    is_syncing: bool
    genesis_hash: CryptoHash | None
    """None where its release does not say."""


def read_assisted_node(home: Path) -> AssistedNode:
    """Read a node's home: config.json, the public half of its node key, and the chain's name in genesis.json.

    Source: nearcore's `nearcore/src/config.rs` and `chain/network/src/config_json.rs`.

    Raises:
        SourceError: a file is not there, or can't be read.
        InvalidInputError: config.json has not what a node's has.
    """
    config_file = home / CONFIG_NAME
    if not config_file.exists():
        raise SourceError(problem="there is no config.json", where=str(home), remedy="Give the node's home; `neard init` makes one.")
    config = read_node_config(config_file)
    where = str(config_file)
    network = config.get("network")
    if not isinstance(network, dict) or not isinstance(network.get("addr"), str):
        raise InvalidInputError(problem="config.json does not say where the node takes peers (network.addr)", where=where)
    if not network["addr"]:
        raise InvalidInputError(problem="the node listens to no peers (network.addr is empty), so it can't be given state", where=where)
    return AssistedNode(
        home=home,
        chain_id=_chain_id(home / _name(config, "genesis_file", "genesis.json", where)),
        peer_id=_peer_id(home / _name(config, "node_key_file", "node_key.json", where)),
        address=_here(network["addr"], where),
        rpc=_rpc(config, where),
        shard_ids=_tracked(config),
        warnings=tuple(_warnings(config)),
    )


@dataclass(slots=True)
class NodeWatch:
    """Asks a running node how it stands, now and then."""

    node: AssistedNode
    interval_s: float
    state: NodeState | None = field(init=False, default=None)
    """The last answer; None where the node did not answer when it was asked last."""
    _client: RpcClient | None = field(init=False, default=None)
    _asked_at_s: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        if self.node.rpc is not None:
            self._client = RpcClient(f"http://{self.node.rpc}", _QUICK)

    def look(self) -> NodeState | None:
        """Return the node's state, asked for again where the last answer is old."""
        now_s = time.monotonic()
        if self._client is not None and now_s - self._asked_at_s >= self.interval_s:
            self.state = self._ask(self._client)
            self._asked_at_s = time.monotonic()
        return self.state

    def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            self._client.close()

    def _ask(self, client: RpcClient) -> NodeState | None:
        try:
            result = client.call("status", []).result
        except StatecastError:
            # It has not started yet, or is being started again.
            return None
        return node_state(result, self.node.chain_id)


def node_state(result: object, chain_id: str) -> NodeState | None:
    """Return what the result of nearcore's JSON-RPC method `status` says; None where it is of another chain, or none."""
    sync = result.get("sync_info") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(sync, dict) or result.get("chain_id") != chain_id:
        return None
    height, syncing = sync.get("latest_block_height"), sync.get("syncing")
    if type(height) is not int or not 0 <= height < 1 << 64 or not isinstance(syncing, bool):
        return None
    return NodeState(height, syncing, _hash_or_none(result.get("genesis_hash")))


async def ask_genesis(node: AssistedNode) -> CryptoHash:
    """Learn the chain's genesis hash from the node's own answer to a handshake, under a key that is used for nothing else.

    Raises:
        TransientStoreError: the node does not answer.
        PeerProtocolError: it refuses.
    """
    own = OwnSide(NodeKey.generate(), GenesisId(node.chain_id, ZERO_HASH), UNUSED_PORT)
    handshake = DialerHandshake(own, Tier.T2, node.peer_id, int(time.time()) | 1)
    connection, _ = await dial(await node.url.resolve(), handshake, time.time)
    await connection.close()
    return handshake.own.genesis.hash


def _chain_id(genesis_file: Path) -> str:
    chain_id = read_genesis_fields(genesis_file, ["chain_id"]).get("chain_id")
    if not isinstance(chain_id, str) or re.fullmatch(CHAIN_ID_PATTERN, chain_id) is None:
        raise SourceError(problem="the genesis file names no chain", where=str(genesis_file))
    return chain_id


def _peer_id(key_file: Path) -> PeerId:
    try:
        # The other half of the file is secret: nothing of it is kept or repeated.
        text = json.loads(read_regular(key_file, KEY_BYTES_MAX))["public_key"]
    except OSError as error:
        raise SourceError(problem=f"the node key can't be read: {error.strerror}", where=str(key_file)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceError(problem="this is no node key as neard's node_key.json has it", where=str(key_file)) from None
    if not isinstance(text, str):
        raise SourceError(problem="this is no node key as neard's node_key.json has it", where=str(key_file))
    return PeerId.parse(text)


def _rpc(config: dict[str, Any], where: str) -> Address | None:
    rpc = config.get("rpc")
    address = rpc.get("addr") if isinstance(rpc, dict) else None
    return _here(address, where) if isinstance(address, str) and address else None


def _here(text: str, where: str) -> Address:
    """Return an address to listen on as it is reached from this machine."""
    address = parse_address(text, where, every_host=True)
    return Address(_EVERY_HOST.get(address.host, address.host), address.port)


def _name(config: dict[str, Any], key: str, default: str, where: str) -> str:
    name = config.get(key) or default
    if not isinstance(name, str) or "\0" in name:
        raise InvalidInputError(problem=f"{key} is no file name", where=where)
    return name


def _tracked(config: dict[str, Any]) -> tuple[int, ...]:
    tracked = config.get("tracked_shards_config")
    named = tracked.get("Shards") if isinstance(tracked, dict) else None
    if isinstance(named, list) and all(isinstance(one, str) and one[:1] == "s" and one[1:].partition(".")[0].isdecimal() for one in named):
        return tuple(sorted({int(one[1:].partition(".")[0]) for one in named}))
    # In the old form a list that is not empty meant all shards, whatever it named.
    return ()


def _warnings(config: dict[str, Any]) -> list[str]:
    found = []
    if config.get("archive") is True:
        found.append("the node is archival: nearcore's archival nodes ask for no state")
    if config.get("state_sync_enabled") is False:
        found.append("state_sync_enabled is false: the node asks for no state")
    sync = config.get("state_sync")
    way = sync.get("sync") if isinstance(sync, dict) else None
    if isinstance(way, dict) and "ExternalStorage" in way:
        found.append("state_sync.sync is ExternalStorage: the node asks a bucket of its own first, and newer releases refuse to start")
    if config.get("tracked_shards_config") == "NoShards" or (config.get("tracked_shards") == [] and "tracked_shards_config" not in config):
        found.append("the node tracks no shards: unless it validates, it asks for no state")
    return found


def _hash_or_none(text: object) -> CryptoHash | None:
    try:
        return CryptoHash.from_base58(text) if isinstance(text, str) else None
    except InvalidInputError:
        return None
