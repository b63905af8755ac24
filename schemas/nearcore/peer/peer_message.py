"""The messages of nearcore's peers, one protobuf message a frame.

Those that a peer of state parts has no use for keep their bytes and are not read (`Unread`). All that are read encode to the bytes that neard
writes. Source: nearcore's `chain/network/src/network_protocol/network.proto` (PeerMessage) and `proto_conv/`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

from schemas.errors import PeerProtocolError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.peer import protobuf
from schemas.nearcore.peer.edge import PartialEdge, PeerEdge
from schemas.nearcore.peer.identity import PeerId, PeerInfo, peer_reader
from schemas.nearcore.peer.protobuf import bytes_field, integer_field, message, only_bytes, present_integer_field, read_fields, unsigned
from schemas.nearcore.peer.routed_message import RoutedMessage
from schemas.nearcore.peer.snapshot_host import SnapshotHost, read_hash
from schemas.nearcore.peer.state_response import StateResponse

PEERS_MAX: Final = 512
"""Most peers of one answer: nearcore bans for more."""
DIRECT_PEERS_MAX: Final = 128
"""Most peers of one answer that are said to be connected."""
EDGES_MAX: Final = 50_000
"""Most edges of one message that nearcore takes."""
TRACKED_SHARDS_MAX: Final = 512
"""Most shards of a handshake that are taken; nearcore itself takes 128 of ours."""
CHAIN_ID_BYTES_MAX: Final = 256
SNAPSHOT_HOSTS_MAX: Final = 4_096
"""Most announcements of one message that are taken; nearcore remembers 1,000."""

_U32_MAX: Final = 2**32 - 1

Piece = bytes | memoryview

Value = TypeVar("Value")


class Tier(IntEnum):
    """What a connection is for; the number is that of the handshake's field."""

    T1 = 27
    T2 = 4
    T3 = 33


class FailureReason(IntEnum):
    """Why a handshake was refused."""

    PROTOCOL_VERSION = 1
    GENESIS = 2
    TARGET = 3


@dataclass(frozen=True, slots=True)
class GenesisId:
    """Which chain a node is of."""

    chain_id: str
    hash: CryptoHash
    """The parent hash of the chain's first block."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """The first message of a connection, and the answer to it."""

    tier: Tier
    protocol_version: int
    oldest_supported_version: int
    sender: PeerId
    target: PeerId
    listen_port: int
    genesis: GenesisId
    edge: PartialEdge
    height: int = 0
    tracked_shards: tuple[int, ...] = ()
    archival: bool = False
    owned_account: bytes | None = None
    """A validator's proof of its account, as it came."""


@dataclass(frozen=True, slots=True)
class HandshakeFailure:
    """Why a handshake was not taken; the connection stays open for another."""

    reason: FailureReason
    peer: PeerInfo
    """Who refused."""
    genesis: GenesisId | None = None
    """The chain of the one that refused, where that is the reason."""
    version: int = 0
    """The newest version of the one that refused, where that is the reason; so is the oldest."""
    oldest_supported_version: int = 0


@dataclass(frozen=True, slots=True)
class LastEdge:
    """A newer edge than the handshake's: the dialer tries again with a higher nonce."""

    edge: PeerEdge


@dataclass(frozen=True, slots=True)
class RoutingTableUpdate:
    """Edges of the network; an answer to `UpdateNonceRequest` has the one that is asked for."""

    edges: tuple[PeerEdge, ...]
    accounts: tuple[bytes, ...] = ()
    """Announcements of validators, as they came."""


@dataclass(frozen=True, slots=True)
class UpdateNonceRequest:
    """Asks the other side to sign an edge again, since old ones are forgotten."""

    edge: PartialEdge


@dataclass(frozen=True, slots=True)
class PeersRequest:
    """Asks for peers."""

    peers_max: int | None = None
    direct_peers_max: int | None = None


@dataclass(frozen=True, slots=True)
class PeersResponse:
    """Peers that the sender heard of, and peers that it is connected to."""

    peers: tuple[PeerInfo, ...] = ()
    direct_peers: tuple[PeerInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Routed:
    """A message on its way through peers."""

    message: RoutedMessage


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The sender is about to close."""

    forget: bool = False
    """The connection is not to be made again."""


@dataclass(frozen=True, slots=True)
class DirectStateRequest:
    """A request for a part or, without a part id, for a header, to a neighbour; the answer comes on the same connection."""

    shard_id: int
    sync_hash: CryptoHash
    part_id: int | None = None


@dataclass(frozen=True, slots=True)
class SyncSnapshotHosts:
    """Who serves which state."""

    hosts: tuple[SnapshotHost, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """A message that a peer of state parts has no use for."""

    field: int
    data: memoryview


PeerMessage = (
    Handshake
    | HandshakeFailure
    | LastEdge
    | RoutingTableUpdate
    | UpdateNonceRequest
    | PeersRequest
    | PeersResponse
    | Routed
    | Disconnect
    | DirectStateRequest
    | StateResponse
    | SyncSnapshotHosts
    | Unread
)


def read_message(frame: bytes | memoryview, fields: Container[int] | None = None) -> PeerMessage:
    """Decode a frame; of a state response nothing large is copied.

    Args:
        fields: the messages that are read, by field; others are `Unread`. None for all.
    Raises:
        PeerProtocolError: no message. nearcore ignores such a frame.
    """
    found: tuple[int, memoryview] | None = None
    for number, value in read_fields(frame, "frame"):
        if number != _TRACE_CONTEXT:
            found = number, message(value, "frame")
    if found is None:
        raise PeerProtocolError(problem="a frame has no message", where="frame")
    number, data = found
    read = _READERS.get(number) if fields is None or number in fields else None
    return Unread(number, data) if read is None else read(data)


def write_message(sent: PeerMessage) -> tuple[Piece, ...]:
    """Encode a frame, in pieces of which the large ones are not copied."""
    if isinstance(sent, StateResponse):
        before, large, after = sent.pieces()
        return state_frame_head(len(before) + len(large) + len(after)) + before, large, after
    number, data = _encoded(sent)
    return (bytes_field(number, data),)


def state_frame_head(size: int) -> bytes:
    """Encode what stands before the borsh of a state response of ``size`` bytes in its frame."""
    inner = _bytes_head(1, size)
    middle = _bytes_head(1, len(inner) + size)
    return _bytes_head(31, len(middle) + len(inner) + size) + middle + inner


def _bytes_head(number: int, size: int) -> bytes:
    return protobuf.varint(number << 3 | 2) + protobuf.varint(size)


def _encoded(sent: PeerMessage) -> tuple[int, bytes]:
    match sent:
        case Handshake():
            return sent.tier, _write_handshake(sent)
        case HandshakeFailure():
            return 5, b"".join(
                (
                    integer_field(1, sent.reason),
                    bytes_field(2, bytes_field(1, sent.peer.to_bytes())),
                    b"" if sent.genesis is None else bytes_field(3, _write_genesis(sent.genesis)),
                    integer_field(4, sent.version),
                    integer_field(5, sent.oldest_supported_version),
                )
            )
        case LastEdge():
            return 6, bytes_field(1, bytes_field(1, sent.edge.to_bytes()))
        case RoutingTableUpdate():
            edges = (bytes_field(1, bytes_field(1, edge.to_bytes())) for edge in sent.edges)
            return 7, b"".join((*edges, *(bytes_field(2, account) for account in sent.accounts)))
        case UpdateNonceRequest():
            return 8, bytes_field(1, bytes_field(1, sent.edge.to_bytes()))
        case PeersRequest():
            bounds = ((1, sent.peers_max), (2, sent.direct_peers_max))
            return 10, b"".join(present_integer_field(number, bound) for number, bound in bounds if bound is not None)
        case PeersResponse():
            listed = [*((1, peer) for peer in sent.peers), *((2, peer) for peer in sent.direct_peers)]
            return 11, b"".join(bytes_field(number, bytes_field(1, peer.to_bytes())) for number, peer in listed)
        case Routed():
            return 17, sent.message.to_bytes()
        case Disconnect():
            return 18, integer_field(1, sent.forget)
        case DirectStateRequest():
            asked = integer_field(1, sent.shard_id) + bytes_field(2, bytes_field(1, sent.sync_hash))
            return (29, asked) if sent.part_id is None else (30, asked + integer_field(3, sent.part_id))
        case SyncSnapshotHosts():
            return 32, b"".join(bytes_field(1, host.to_bytes()) for host in sent.hosts)
        case Unread():
            return sent.field, bytes(sent.data)
        case StateResponse():
            return 31, b"".join(sent.pieces())


def _write_genesis(genesis: GenesisId) -> bytes:
    chain_id = genesis.chain_id.encode()
    return (bytes_field(1, chain_id) if chain_id else b"") + bytes_field(2, bytes_field(1, genesis.hash))


def _write_handshake(sent: Handshake) -> bytes:
    chain = b"".join(
        (
            bytes_field(1, _write_genesis(sent.genesis)),
            integer_field(2, sent.height),
            *(present_integer_field(3, shard) for shard in sent.tracked_shards),
            integer_field(4, sent.archival),
        )
    )
    return b"".join(
        (
            integer_field(1, sent.protocol_version),
            integer_field(2, sent.oldest_supported_version),
            bytes_field(3, bytes_field(1, sent.sender.to_bytes())),
            bytes_field(4, bytes_field(1, sent.target.to_bytes())),
            integer_field(5, sent.listen_port),
            bytes_field(6, chain),
            bytes_field(7, bytes_field(1, sent.edge.to_bytes())),
            b"" if sent.owned_account is None else bytes_field(8, sent.owned_account),
        )
    )


def _read_handshake(tier: Tier) -> Callable[[memoryview], Handshake]:
    def read(data: memoryview) -> Handshake:
        where = f"handshake of tier {tier.name[1:]}"
        version = oldest = port = height = 0
        sender: PeerId | None = None
        target: PeerId | None = None
        genesis: GenesisId | None = None
        edge: PartialEdge | None = None
        shards: tuple[int, ...] = ()
        archival, owned_account = False, None
        for number, value in read_fields(data, where):
            match number:
                case 1:
                    version = unsigned(value, where, _U32_MAX)
                case 2:
                    oldest = unsigned(value, where, _U32_MAX)
                case 3:
                    sender = _read_whole(PeerId.read, value, where)
                case 4:
                    target = _read_whole(PeerId.read, value, where)
                case 5:
                    port = unsigned(value, where, 2**16 - 1)
                case 6:
                    genesis, height, shards, archival = _read_chain_info(message(value, where), where)
                case 7:
                    edge = PartialEdge.from_bytes(only_bytes(value, where))
                case 8:
                    owned_account = bytes(message(value, where))
                case _:
                    pass
        if sender is None or target is None or genesis is None or edge is None:
            raise PeerProtocolError(problem="sender, target, chain or edge is missing", where=where)
        return Handshake(tier, version, oldest, sender, target, port, genesis, edge, height, shards, archival, owned_account)

    return read


def _read_chain_info(data: memoryview, where: str) -> tuple[GenesisId | None, int, tuple[int, ...], bool]:
    genesis, height, shards, archival = None, 0, list[int](), False
    for number, value in read_fields(data, where):
        match number:
            case 1:
                genesis = _read_genesis(value, where)
            case 2:
                height = unsigned(value, where)
            case 3:
                shards += protobuf.read_varints(value, where)
                if len(shards) > TRACKED_SHARDS_MAX:
                    raise PeerProtocolError(problem=f"more than {TRACKED_SHARDS_MAX} shards are tracked", where=where)
            case 4:
                archival = unsigned(value, where, 1) == 1
            case _:
                pass
    return genesis, height, tuple(shards), archival


def _read_genesis(value: protobuf.FieldValue, where: str) -> GenesisId:
    chain_id, digest = b"", None
    for number, part in read_fields(message(value, where), where):
        if number == 1:
            chain_id = bytes(message(part, where))
        elif number == 2:
            digest = read_hash(part, where)
    if digest is None or len(chain_id) > CHAIN_ID_BYTES_MAX:
        raise PeerProtocolError(problem="a genesis has no hash, or too long a name", where=where)
    try:
        return GenesisId(chain_id.decode(), digest)
    except UnicodeDecodeError as error:
        raise PeerProtocolError(problem="a chain's name is not UTF-8", where=where) from error


def _read_failure(data: memoryview) -> HandshakeFailure:
    where = "handshake failure"
    reason = version = oldest = 0
    peer: PeerInfo | None = None
    genesis: GenesisId | None = None
    for number, value in read_fields(data, where):
        match number:
            case 1:
                reason = unsigned(value, where, _U32_MAX)
            case 2:
                peer = _read_whole(PeerInfo.read, value, where)
            case 3:
                genesis = _read_genesis(value, where)
            case 4:
                version = unsigned(value, where, _U32_MAX)
            case 5:
                oldest = unsigned(value, where, _U32_MAX)
            case _:
                pass
    if reason not in set(FailureReason) or peer is None:
        raise PeerProtocolError(problem="reason or peer is missing", where=where)
    return HandshakeFailure(FailureReason(reason), peer, genesis, version, oldest)


def _read_routing_table(data: memoryview) -> RoutingTableUpdate:
    where = "routing table"
    edges, accounts = list[PeerEdge](), list[bytes]()
    for number, value in read_fields(data, where):
        if number == 1:
            edges.append(PeerEdge.from_bytes(only_bytes(value, where)))
        elif number == 2:
            accounts.append(bytes(message(value, where)))
        if len(edges) + len(accounts) > EDGES_MAX:
            raise PeerProtocolError(problem=f"more than {EDGES_MAX} edges and accounts are told", where=where)
    return RoutingTableUpdate(tuple(edges), tuple(accounts))


def _read_last_edge(data: memoryview) -> LastEdge:
    return LastEdge(PeerEdge.from_bytes(only_bytes(_only_field(data, "last edge"), "last edge")))


def _read_update_nonce(data: memoryview) -> UpdateNonceRequest:
    return UpdateNonceRequest(PartialEdge.from_bytes(only_bytes(_only_field(data, "nonce update"), "nonce update")))


def _read_peers_request(data: memoryview) -> PeersRequest:
    bounds: dict[int, int] = {}
    for number, value in read_fields(data, "peers request"):
        bounds[number] = unsigned(value, "peers request", _U32_MAX)
    return PeersRequest(bounds.get(1), bounds.get(2))


def _read_peers_response(data: memoryview) -> PeersResponse:
    where = "peers"
    peers, direct = list[PeerInfo](), list[PeerInfo]()
    for number, value in read_fields(data, where):
        if number == 1:
            peers.append(_read_whole(PeerInfo.read, value, where))
        elif number == 2:
            direct.append(_read_whole(PeerInfo.read, value, where))
        if len(peers) > PEERS_MAX or len(direct) > DIRECT_PEERS_MAX:
            raise PeerProtocolError(problem=f"more than {PEERS_MAX} peers, or {DIRECT_PEERS_MAX} direct ones, are told", where=where)
    return PeersResponse(tuple(peers), tuple(direct))


def _read_disconnect(data: memoryview) -> Disconnect:
    forget = False
    for number, value in read_fields(data, "disconnect"):
        if number == 1:
            forget = unsigned(value, "disconnect", 1) == 1
    return Disconnect(forget)


def _read_state_request(of_part: bool) -> Callable[[memoryview], DirectStateRequest]:
    def read(data: memoryview) -> DirectStateRequest:
        where = "state request"
        shard_id = part_id = 0
        sync_hash: CryptoHash | None = None
        for number, value in read_fields(data, where):
            match number:
                case 1:
                    shard_id = unsigned(value, where)
                case 2:
                    sync_hash = read_hash(value, where)
                case 3:
                    part_id = unsigned(value, where)
                case _:
                    pass
        if sync_hash is None:
            raise PeerProtocolError(problem="the sync hash is missing", where=where)
        return DirectStateRequest(shard_id, sync_hash, part_id if of_part else None)

    return read


def _read_hosts(data: memoryview) -> SyncSnapshotHosts:
    hosts: list[SnapshotHost] = []
    for number, value in read_fields(data, "snapshot hosts"):
        if number == 1:
            hosts.append(SnapshotHost.from_bytes(message(value, "snapshot hosts")))
        if len(hosts) > SNAPSHOT_HOSTS_MAX:
            raise PeerProtocolError(problem=f"more than {SNAPSHOT_HOSTS_MAX} hosts are told", where="snapshot hosts")
    return SyncSnapshotHosts(tuple(hosts))


def _read_whole(read: Callable[[BorshReader], Value], value: protobuf.FieldValue, where: str) -> Value:
    reader = peer_reader(only_bytes(value, where), where)
    found = read(reader)
    reader.end()
    return found


def _only_field(data: memoryview, where: str) -> memoryview:
    found = memoryview(b"")
    for number, value in read_fields(data, where):
        if number == 1:
            found = message(value, where)
    return found


_TRACE_CONTEXT: Final = 26
"""Stands beside a message."""

_READERS: Mapping[int, Callable[[memoryview], PeerMessage]] = {
    Tier.T1: _read_handshake(Tier.T1),
    Tier.T2: _read_handshake(Tier.T2),
    Tier.T3: _read_handshake(Tier.T3),
    5: _read_failure,
    6: _read_last_edge,
    7: _read_routing_table,
    8: _read_update_nonce,
    10: _read_peers_request,
    11: _read_peers_response,
    17: lambda data: Routed(RoutedMessage.from_bytes(data)),
    18: _read_disconnect,
    29: _read_state_request(of_part=False),
    30: _read_state_request(of_part=True),
    31: lambda data: StateResponse.from_bytes(only_bytes(_only_field(data, "state response"), "state response")),
    32: _read_hosts,
}
