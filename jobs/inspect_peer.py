"""What ``statecast inspect near://…`` shows: a peer of nearcore's network, and on request its neighbours."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.terminal import format_bytes
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.survey import SurveyedPeer, survey
from schemas.ids import CryptoHash

SHARDS_SHOWN_MAX = 12


def peer_document(url: str, neighbours: int, try_sync_hash: str | None) -> dict[str, Any]:
    """Look at a peer, and return what there is to show.

    Raises:
        StatecastError: it can't be reached, or refuses.
    """
    sync_hash = None if try_sync_hash is None else CryptoHash.from_base58(try_sync_hash)
    peers = asyncio.run(survey(PeerUrl.parse(url), neighbours_max=neighbours, try_sync_hash=sync_hash))
    hosts = {host.peer_id: host for peer in reversed(peers) for host in peer.hosts}
    return {
        "kind": "near_peer",
        "url": url,
        "peers": [_peer(peer) for peer in peers],
        "snapshot_hosts": [
            {
                "peer_id": str(host.peer_id),
                "epoch_height": host.epoch_height,
                "announced_hash": str(host.announced_hash),
                "shards": list(host.shards),
            }
            for host in sorted(hosts.values(), key=lambda host: (-host.epoch_height, host.peer_id))
        ],
    }


def _peer(peer: SurveyedPeer) -> dict[str, Any]:
    own = peer.own_announcement
    return {
        "peer_id": str(peer.peer_id),
        "address": peer.address,
        "chain_id": None if peer.genesis is None else peer.genesis.chain_id,
        "genesis_hash": None if peer.genesis is None else str(peer.genesis.hash),
        "protocol_version": peer.version,
        "handshake_s": None if peer.handshake_s is None else round(peer.handshake_s, 4),
        "epoch_height": None if own is None else own.epoch_height,
        "shards": [] if own is None else list(own.shards),
        "peers_named": len(peer.peers),
        "tried": [
            {"shard_id": one.shard_id, "part_id": one.part_id, "seconds": round(one.seconds, 3), "bytes": one.size, "problem": one.problem}
            for one in peer.tried
        ],
        "problem": peer.problem,
    }


def print_peer(console: Console, document: dict[str, Any]) -> None:
    """Print the tables."""
    peers = Table(
        "peer",
        "address",
        "chain",
        "version",
        "handshake",
        "hosts epoch",
        "shards",
        "names peers",
        title=document["url"],
        title_justify="left",
    )
    for peer in document["peers"]:
        if peer["problem"]:
            peers.add_row(peer["peer_id"], peer["address"], "", "", peer["problem"], "", "", "")
            continue
        peers.add_row(
            peer["peer_id"],
            peer["address"],
            peer["chain_id"],
            str(peer["protocol_version"]),
            f"{1000 * peer['handshake_s']:.0f} ms",
            "none" if peer["epoch_height"] is None else str(peer["epoch_height"]),
            _shards(peer["shards"]),
            str(peer["peers_named"]),
        )
    console.print(peers)
    hosts = Table("epoch", "shards", "announced hash", "peer", title="who announces which epoch, as signed by each", title_justify="left")
    for host in document["snapshot_hosts"]:
        hosts.add_row(str(host["epoch_height"]), _shards(host["shards"]), host["announced_hash"], host["peer_id"])
    console.print(hosts if document["snapshot_hosts"] else "nobody announces an epoch")
    tried = [(peer["peer_id"], one) for peer in document["peers"] for one in peer["tried"]]
    if tried:
        table = Table("peer", "shard", "object", "seconds", "result", title="asked for", title_justify="left")
        for peer_id, one in tried:
            result = one["problem"] or ("none" if one["bytes"] is None else format_bytes(one["bytes"]))
            name = "header" if one["part_id"] is None else f"part {one['part_id']}"
            table.add_row(peer_id, str(one["shard_id"]), name, f"{one['seconds']:.3f}", result)
        console.print(table)


def _shards(shards: list[int]) -> str:
    shown = ", ".join(map(str, shards[:SHARDS_SHOWN_MAX]))
    return shown + (f" and {len(shards) - SHARDS_SHOWN_MAX} more" if len(shards) > SHARDS_SHOWN_MAX else "")
