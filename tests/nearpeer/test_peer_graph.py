"""Edges as they are told: who is known, and by which neighbour a peer is reached; forged and old ones count for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.nearpeer import peer_graph
from pipelines.nearpeer.peer_graph import PeerGraph
from schemas.nearcore.peer.edge import PeerEdge, edge_digest
from tests.support.peer_recordings import named_key

NOW_S = 1_800_000_001


def edge(one: str, other: str, nonce: int = NOW_S) -> PeerEdge:
    """Return an edge that both have signed."""
    a, b = sorted((named_key(one), named_key(other)), key=lambda key: key.peer_id)
    return a.edge_with(b.peer_id, nonce, b.sign_edge(a.peer_id, nonce))


def removed(of: PeerEdge, by: str) -> PeerEdge:
    """Return an edge's removal, signed by one of its peers."""
    key = named_key(by)
    return replace(of, nonce=of.nonce + 1, removal=(of.a == key.peer_id, key.sign(edge_digest(of.a, of.b, of.nonce + 1))))


def hop(graph: PeerGraph, target: str, *neighbours: str) -> str | None:
    """Return the name of the neighbour towards a peer, worked out anew."""
    graph._ways_at_s = float("-inf")
    found = graph.next_hop(named_key(target).peer_id, [named_key(name).peer_id for name in neighbours], NOW_S)
    return next((name for name in neighbours if named_key(name).peer_id == found), None)


def test_a_peer_is_reached_by_the_neighbour_that_is_nearest() -> None:
    """Over signed edges; one that is removed, old, of another time or forged is no way."""
    graph = PeerGraph()
    graph.learn([edge("near", "middle"), edge("middle", "far"), edge("other", "far")], NOW_S)
    assert (hop(graph, "middle", "near"), hop(graph, "far", "near"), hop(graph, "far", "near", "other")) == ("near", "near", "other")
    assert hop(graph, "nobody", "near") is None
    graph.learn([removed(edge("other", "far"), "far")], NOW_S)
    assert hop(graph, "far", "near", "other") == "near"
    graph.learn([edge("other", "far")], NOW_S)
    assert hop(graph, "far", "near", "other") == "near", "what was removed is not told back"
    for told in (
        replace(edge("near", "lost"), nonce=NOW_S + 2),
        edge("near", "lost", NOW_S - 1_802),
        edge("near", "lost", NOW_S + 1_202),
    ):
        graph.learn([told], NOW_S)
        assert hop(graph, "lost", "near", "middle") is None or hop(graph, "lost", "near") == "near"
        assert not graph.knows(named_key("lost").peer_id, NOW_S)


def test_a_peer_is_known_by_an_edge_that_it_signed_lately() -> None:
    """And by none that another one made up, or that is half an hour old."""
    graph = PeerGraph()
    signed = edge("near", "known")
    graph.learn([replace(edge("near", "made up"), signature_a=signed.signature_a), signed], NOW_S)
    assert graph.knows(named_key("known").peer_id, NOW_S)
    assert not graph.knows(named_key("made up").peer_id, NOW_S)
    assert not graph.knows(named_key("known").peer_id, NOW_S + 1_801)
    assert not graph.knows(named_key("known").peer_id, NOW_S), "it is forgotten"


def test_no_more_edges_are_kept_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tells them."""
    monkeypatch.setattr(peer_graph, "EDGES_KEPT_MAX", 3)
    graph = PeerGraph()
    graph.learn([edge("hub", f"peer {number}") for number in range(6)], NOW_S)
    assert len(graph) == 3 and not graph.knows(named_key("peer 0").peer_id, NOW_S)
    assert graph.knows(named_key("peer 5").peer_id, NOW_S) and len(graph._beside) == 4
