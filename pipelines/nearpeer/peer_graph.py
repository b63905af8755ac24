"""Which peers are connected with which, as peers tell it: which are in the network at all, and by which neighbour one is reached.

Edges come by tens of thousands and are signed by both their peers; checking a signature is what costs, so an edge is checked when something
is to rest on it. nearcore passes a message on along a shortest way, and so does this. Source: nearcore's `chain/network/src/routing/graph`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from pipelines.nearpeer.handshake import NONCE_WINDOW_S
from pipelines.nearpeer.node_key import edge_holds
from schemas.nearcore.peer.edge import PeerEdge
from schemas.nearcore.peer.identity import PeerId

EDGES_KEPT_MAX: Final = 50_000
"""Those that were told last; as many as nearcore takes of one peer."""
EDGE_AGE_S_MAX: Final = 1_800
"""After which an edge that was not signed again counts no more."""
WAYS_INTERVAL_S: Final = 5.0
"""How often the ways to all peers are worked out, at most."""
CHECKS_MAX: Final = 8
"""Most edges that are checked before one answer."""

_Pair = tuple[PeerId, PeerId]


@dataclass(slots=True)
class _Edge:
    edge: PeerEdge
    is_checked: bool = False


class PeerGraph:
    """The edges that the neighbours of one key have told."""

    def __init__(self) -> None:
        self._edges: OrderedDict[_Pair, _Edge] = OrderedDict()
        self._beside: dict[PeerId, set[PeerId]] = {}
        self._ways: dict[PeerId, tuple[PeerId, PeerId]] = {}
        """By peer: the neighbour towards it, and the peer before it on that way."""
        self._ways_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._edges)

    def learn(self, edges: Iterable[PeerEdge], now_s: float) -> None:
        """Take edges that are newer than those that are known; nothing is checked yet."""
        for edge in edges:
            pair = (edge.a, edge.b)
            known = self._edges.get(pair)
            if not -EDGE_AGE_S_MAX < edge.nonce - now_s < NONCE_WINDOW_S or (known is not None and known.edge.nonce >= edge.nonce):
                continue
            self._edges[pair] = _Edge(edge)
            self._edges.move_to_end(pair)
            if edge.removal is None:
                self._beside.setdefault(edge.a, set()).add(edge.b)
                self._beside.setdefault(edge.b, set()).add(edge.a)
            else:
                self._part(pair)
            if len(self._edges) > EDGES_KEPT_MAX:
                self._part(self._edges.popitem(last=False)[0])

    def knows(self, peer: PeerId, now_s: float) -> bool:
        """Return whether a peer signed an edge with another one lately, which that one signed too."""
        return any(self._holds(peer, other, now_s) for other in list(self._beside.get(peer, ()))[:CHECKS_MAX])

    def next_hop(self, target: PeerId, neighbours: Collection[PeerId], now_s: float) -> PeerId | None:
        """Return the neighbour by which a peer is reached in the fewest hops; None where no way is known.

        Args:
            neighbours: the peers that are connected; the target is none of them.
        """
        if now_s - self._ways_at_s >= WAYS_INTERVAL_S:
            self._ways, self._ways_at_s = self._work_out_ways(neighbours), now_s
        at, checked = target, 0
        while (way := self._ways.get(at)) is not None and checked < CHECKS_MAX:
            first, before = way
            if first == at:
                return first if first in neighbours else None
            checked += 1
            if not self._holds(at, before, now_s):
                return None
            at = before
        return None

    def _work_out_ways(self, neighbours: Collection[PeerId]) -> dict[PeerId, tuple[PeerId, PeerId]]:
        ways = {neighbour: (neighbour, neighbour) for neighbour in neighbours}
        reached = list(ways)
        while reached:
            further = []
            for peer in reached:
                first = ways[peer][0]
                for other in self._beside.get(peer, ()):
                    if other not in ways:
                        ways[other] = first, peer
                        further.append(other)
            reached = further
        return ways

    def _holds(self, one: PeerId, other: PeerId, now_s: float) -> bool:
        pair = (one, other) if one < other else (other, one)
        known = self._edges.get(pair)
        if known is None or known.edge.removal is not None:
            return False
        if known.edge.nonce - now_s > -EDGE_AGE_S_MAX and (known.is_checked or edge_holds(known.edge)):
            known.is_checked = True
            return True
        del self._edges[pair]
        self._part(pair)
        return False

    def _part(self, pair: _Pair) -> None:
        for one, other in (pair, pair[::-1]):
            if (beside := self._beside.get(one)) is not None:
                beside.discard(other)
                if not beside:
                    del self._beside[one]
