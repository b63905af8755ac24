"""Keeps the edge with a neighbour fresh: nearcore forgets edges of half an hour ago, and finds no route to a peer without one.

Rules of nearcore's `chain/network/src/peer_manager/network_state/mod.rs` (finalize_edge) and `peer/peer_actor.rs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.nearpeer.handshake import NONCE_WINDOW_S, odd_above
from pipelines.nearpeer.node_key import NodeKey, edge_holds, holds
from schemas.errors import PeerProtocolError
from schemas.nearcore.peer.edge import PartialEdge, PeerEdge, edge_digest
from schemas.nearcore.peer.identity import PeerId
from schemas.nearcore.peer.peer_message import RoutingTableUpdate, UpdateNonceRequest

REFRESH_INTERVAL_S: Final = 600
"""How often the side that dialled asks for a new nonce."""


@dataclass(slots=True)
class EdgeKeeper:
    """One neighbour's edge."""

    key: NodeKey
    peer_id: PeerId
    edge: PeerEdge
    dialled: bool
    """Whether this side dialled, and so asks."""
    asked_at_s: int
    """When a nonce was last agreed on or asked for."""

    def due(self, now_s: int) -> UpdateNonceRequest | None:
        """Return what is to be sent now, if anything."""
        if not self.dialled or now_s - self.asked_at_s < REFRESH_INTERVAL_S:
            return None
        self.asked_at_s = now_s
        nonce = max(odd_above(self.edge.nonce), now_s | 1)
        return UpdateNonceRequest(PartialEdge(nonce, self.key.sign_edge(self.peer_id, nonce)))

    def answer(self, request: UpdateNonceRequest, now_s: int) -> RoutingTableUpdate:
        """Sign what the neighbour asks for; the current edge is the answer where that is as new.

        Raises:
            PeerProtocolError: an even nonce, one of another time, or a signature that does not hold.
        """
        nonce, signature = request.edge.nonce, request.edge.signature
        if nonce <= self.edge.nonce:
            return RoutingTableUpdate((self.edge,))
        if nonce % 2 == 0 or abs(nonce - now_s) >= NONCE_WINDOW_S:
            raise PeerProtocolError(problem=f"the nonce {nonce} is even or not of this time", where=str(self.peer_id))
        if not holds(signature, self.peer_id, edge_digest(self.key.peer_id, self.peer_id, nonce)):
            raise PeerProtocolError(problem="the edge's signature does not hold", where=str(self.peer_id))
        self.edge = self.key.edge_with(self.peer_id, nonce, signature)
        self.asked_at_s = now_s
        return RoutingTableUpdate((self.edge,))

    def learn(self, update: RoutingTableUpdate) -> None:
        """Take a newer edge with this neighbour out of what it tells; edges of others are not looked at."""
        ours = (self.edge.a, self.edge.b)
        for edge in update.edges:
            if (edge.a, edge.b) == ours and edge.removal is None and edge.nonce > self.edge.nonce and edge_holds(edge):
                self.edge = edge
