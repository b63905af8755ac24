"""Whether a request for state is answered, and where: what keeps a server of strangers from being used up, or used to dial others.

A request of two hundred bytes asks for thirty megabytes, and the address that it wants them at is the asker's own claim, signed by nobody
who lives there. So an address is dialled only for an asker that is known, only where the public network may be, and not often; and
no part goes out before the peer that answers there has signed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pipelines.nearpeer.announcing import HostedEpoch
from schemas.address import is_public_address
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerAddress, PeerId

PORT_MIN: Final = 1024

ANSWER_S: Final = 10.0
"""How long a node waits for an answer, dial and transfer included (nearcore's consensus.state_sync_p2p_timeout); then it asks again."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one asker and all together may take."""

    under_way_max: int = 12
    """Answers to one asker, or one IP address, that are under way."""
    per_s_max: int = 2
    """Requests of one asker a second, beyond a burst of `under_way_max`."""
    dials_per_minute_max: int = 60
    dials_per_asker_per_minute_max: int = 10
    """Also to one IP address, whichever peers ask: it may belong to none of them."""
    private_addresses: bool = False
    """Loopback, private and link-local addresses, and ports below 1024, are dialled too: for trying it out."""
    queued_bytes_max: int = 1 << 30
    """Bytes of answers under way, all askers together; above it the answer is that this peer is busy."""
    askers: frozenset[PeerId] | None = None
    """The peers that are answered at all; to others this one is busy. None for all."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    asker: PeerId
    shard_id: int
    part_id: int | None
    """None for the header."""
    reply_to: PeerAddress | None
    """Where the asker says it listens; None where it waits on the connection that it asked on."""
    ip: IPv4Address | IPv6Address | None = None
    """Of the asker's connection; None where it has none here. What it says of itself does not count: others' limits would be used up."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer, or the answer that this peer is busy."""

    reason: str
    busy: bool = False
    is_coming: bool = False
    """What was asked for before is on its way, and satisfies this request too."""


@dataclass(slots=True)
class _Asker:
    tokens: float
    seen_at_s: float
    under_way: int = 0
    dialled_at_s: deque[float] = field(default_factory=deque)
    dialling: bool = False


@dataclass(slots=True)
class RequestPolicy:
    """Decides, and counts what it decided."""

    limits: RequestLimits
    upload_bytes_per_s: int | None = None
    """What all answers together are sent with; None for as fast as it goes."""
    counted: Counter[str] = field(init=False, default_factory=Counter)
    """Requests by what became of them; and dials that were not made."""
    counted_by_kind: Counter[tuple[str, str]] = field(init=False, default_factory=Counter)
    """Requests by kind, header or part, and by what became of them."""
    _askers: dict[PeerId | bytes, _Asker] = field(init=False, default_factory=dict)
    """By key and by IP address."""
    _under_way: set[tuple[Wanted, CryptoHash]] = field(init=False, default_factory=set)
    _queued_bytes: int = field(init=False, default=0)
    _dialled_at_s: deque[float] = field(init=False, default_factory=deque)

    def decide(
        self, wanted: Wanted, epoch: HostedEpoch | None, size_of: Callable[[HostedEpoch, Wanted], int | None], now_s: float
    ) -> int | Refused:
        """Return the bytes of the answer, which counts as under way until `ended`; or why there is none.

        Args:
            epoch: the announced one that the request is for.
            size_of: the bytes of a part or header; None where there is no such part. Asked only of what was announced.
        """
        decision = self._decide(wanted, epoch, size_of, now_s)
        outcome = decision.reason if isinstance(decision, Refused) else "answered"
        self.counted[outcome] += 1
        self.counted_by_kind["header" if wanted.part_id is None else "part", outcome] += 1
        return decision

    def _decide(
        self, wanted: Wanted, epoch: HostedEpoch | None, size_of: Callable[[HostedEpoch, Wanted], int | None], now_s: float
    ) -> int | Refused:
        if epoch is None:
            return Refused("not announced", busy=True)
        if self.limits.askers is not None and wanted.asker not in self.limits.askers:
            return Refused("not served", busy=True)
        asking = [self._asker(name, now_s) for name in _names(wanted)]
        if any(asker.tokens < 1 for asker in asking):
            return Refused("too many requests", busy=True)
        for asker in asking:
            asker.tokens -= 1
        size = size_of(epoch, wanted)
        if size is None:
            return Refused("no such part")
        if (wanted, epoch.sync_hash) in self._under_way:
            # A node that has waited in vain asks again, and takes the late answer: a second one would make all later.
            return Refused("under way already", is_coming=True)
        if any(asker.under_way >= self.limits.under_way_max for asker in asking):
            return Refused("too many answers under way", busy=True)
        if self._queued_bytes + size > self.limits.queued_bytes_max and self._queued_bytes:
            return Refused("out of room", busy=True)
        rate = self.upload_bytes_per_s
        if rate is not None and self._queued_bytes and self._queued_bytes + size > rate * ANSWER_S:
            return Refused("not in time", busy=True)
        for asker in asking:
            asker.under_way += 1
        self._under_way.add((wanted, epoch.sync_hash))
        self._queued_bytes += size
        return size

    @property
    def askers(self) -> int:
        """How many peers have asked within the last minutes."""
        return sum(isinstance(name, PeerId) for name in self._askers)

    def ended(self, wanted: Wanted, sync_hash: CryptoHash, size: int) -> None:
        """Take note that an answer was sent, or given up."""
        self._under_way.discard((wanted, sync_hash))
        self._queued_bytes -= size
        for name in _names(wanted):
            if (asker := self._askers.get(name)) is not None:
                asker.under_way -= 1

    def may_dial(self, asker_id: PeerId, address: PeerAddress, *, known: bool, now_s: float) -> Refused | None:
        """Take a dial's place, which `dial_ended` gives back; or say why the address is not dialled.

        Args:
            known: the asker has a connection with us, or an edge in the network.
        """
        asker, place = self._asker(asker_id, now_s), self._asker(_network(address.ip), now_s)
        for times in (self._dialled_at_s, asker.dialled_at_s, place.dialled_at_s):
            while times and now_s - times[0] >= 60:
                times.popleft()
        refused = None
        if not known:
            refused = Refused("asker unknown")
        elif not self.limits.private_addresses and (not is_public_address(str(address.ip)) or address.port < PORT_MIN):
            refused = Refused("address not public")
        elif asker.dialling:
            refused = Refused("dialled already")
        elif (
            len(self._dialled_at_s) >= self.limits.dials_per_minute_max
            or max(len(asker.dialled_at_s), len(place.dialled_at_s)) >= self.limits.dials_per_asker_per_minute_max
        ):
            refused = Refused("too many dials")
        if refused is not None:
            self.counted[f"not dialled: {refused.reason}"] += 1
            return refused
        asker.dialling = True
        self._dialled_at_s.append(now_s)
        asker.dialled_at_s.append(now_s)
        place.dialled_at_s.append(now_s)
        return None

    def dial_ended(self, asker_id: PeerId) -> None:
        """Give a dial's place back."""
        if (asker := self._askers.get(asker_id)) is not None:
            asker.dialling = False

    def forget_idle(self, now_s: float) -> None:
        """Forget askers of which nothing is under way and nothing was heard for minutes."""
        for name, asker in list(self._askers.items()):
            if not asker.under_way and not asker.dialling and now_s - asker.seen_at_s > 120:
                del self._askers[name]

    def _asker(self, name: PeerId | bytes, now_s: float) -> _Asker:
        burst = float(self.limits.under_way_max)
        asker = self._askers.setdefault(name, _Asker(burst, now_s))
        asker.tokens = min(burst, asker.tokens + (now_s - asker.seen_at_s) * self.limits.per_s_max)
        asker.seen_at_s = now_s
        return asker


def _names(wanted: Wanted) -> tuple[PeerId | bytes, ...]:
    return (wanted.asker,) if wanted.ip is None else (wanted.asker, _network(wanted.ip))


def _network(ip: IPv4Address | IPv6Address) -> bytes:
    """Return what counts as one address: of IPv6, a network of 64 bits."""
    return ip.packed[:8]
