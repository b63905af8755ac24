"""A state header out of nearcore's own network, where no source of documents has the one that the manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from pipelines.fetching.near_peer_source import NearPeerSettings
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_hosts import AskingPace, StateHosts
from schemas.errors import IntegrityError
from schemas.ids import ZERO_HASH
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.state_response import StateResponse
from schemas.nearcore.state_header import STORED_HEADER_FORM
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestHeader, ManifestShard

FAILURES_MAX: Final = 2
"""Silences of a node after which it is not waited for: parts may come from it all the same."""


def header_from_peers(peers: Sequence[PeerUrl], manifest: Manifest, listed: ManifestShard, settings: NearPeerSettings) -> bytes:
    """Return the state header that a manifest lists, as the first node gives it that has it.

    Raises:
        FetchError: no node gives it; what each did is listed.
    """
    wanted = listed.header
    assert wanted is not None, "the manifest lists one"
    pace = AskingPace(settings.requests_per_s, failures_max=FAILURES_MAX)
    announced_hash = decode_block_header(manifest.block_headers[1], "parent").prev_hash if manifest.block_headers else ZERO_HASH
    with closing(StateHosts(peers, settings.genesis, announced_hash, pace, settings.listening)) as hosts:
        question = (listed.shard_id, manifest.sync_hash, None)
        return hosts.get(question, lambda response, where: _as_published(response, wanted, where))[1]


def _as_published(response: StateResponse, wanted: ManifestHeader, where: str) -> bytes:
    data = STORED_HEADER_FORM + bytes(response.header or b"")
    if len(data) != wanted.size or hashlib.sha256(data).hexdigest() != wanted.sha256:
        raise IntegrityError(problem="its state header does not have the sha256 that the manifest says", where=where)
    return data
