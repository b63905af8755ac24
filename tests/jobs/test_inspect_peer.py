"""What inspect shows of a peer of nearcore's network."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.survey import survey
from tests.support.commands import statecast
from tests.support.fetches import parts_manifest, published_parts
from tests.support.near_hosts import PublishedState, near_host


def test_a_peer_is_shown_with_what_it_announces_and_answers(tmp_path: Path) -> None:
    """Chain and version as it says them, its epoch and shards as it signed them, and what came when it was asked."""
    manifest = parts_manifest()
    shards = [0, 1]
    with near_host(PublishedState(published_parts(), manifest, tmp_path), shards=(0, 1)) as url:
        outcome = statecast("inspect", url, "--json")
        assert outcome.code == 0, outcome.stderr
        (peer,) = outcome.document["peers"]
        (host,) = outcome.document["snapshot_hosts"]
        assert (peer["chain_id"], peer["protocol_version"], peer["shards"]) == (manifest.chain_id, 87, shards)
        assert (host["epoch_height"], host["shards"], host["peer_id"]) == (manifest.epoch_height, shards, peer["peer_id"])
        tried = statecast("inspect", url, "--sync-hash", manifest.sync_hash, "--json").document["peers"][0]["tried"]
        assert {(one["shard_id"], one["part_id"]) for one in tried if one["bytes"]} == {
            (shard, part) for shard in shards for part in (None, 0)
        }
        unknown = asyncio.run(survey(PeerUrl.parse(url), try_sync_hash=manifest.epoch_id, try_timeout_s=0.3))[0].tried
        assert [(one.size, "no answer" in one.problem) for one in unknown] == [(None, True)], "after one silence nothing more is asked"
        shown = statecast("inspect", url)
        assert str(manifest.epoch_height) in shown.stdout and peer["peer_id"] in shown.stdout


def test_a_peer_that_is_not_there_or_another_is_said_so(tmp_path: Path) -> None:
    """With what answers where it should be."""
    with near_host(PublishedState(published_parts(), parts_manifest(), tmp_path)) as url:
        other = "near://ed25519:8kiK9kgtoEx8BScnqq9NZ6h4Ao2HFdDHhsaS958pAEXB@" + url.rpartition("@")[2]
        wrong = statecast("inspect", other)
        assert (wrong.code, "another peer lives at the address" in wrong.stderr) == (20, True)
    gone = statecast("inspect", url)
    assert (gone.code, "can't connect" in gone.stderr) == (30, True)
    assert statecast("inspect", "near://nonsense").code == 2
