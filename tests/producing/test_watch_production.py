"""What a watcher asks the store, and how an attempt of it is ended."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.bucket.epoch_claim import Claimant, HeldClaim
from pipelines.bucket.holder_process import this_holder
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import go_on
from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.producing.claimed_production import ClaimTerms
from pipelines.producing.deltas.delta_ladder import DeltaLadder
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.produce_epoch import ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.watch.watch_production import WatchProduction
from pipelines.stores.open_store import open_store
from schemas.errors import ClaimedError
from schemas.ids import CryptoHash
from schemas.nearcore.state_part import default_encoding
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import EpochLayout, latest_name
from tests.support.nodes import localnet_home
from tests.support.published_ladder import published_ladder
from tests.support.whole_productions import Told


def production(store_url: str) -> WatchProduction:
    """Return what a watcher of the localnet node works with, as far as it looks at the store."""
    unused: dict[str, Any] = {field.name: None for field in fields(WatchProduction) if field.init and field.name != "_contexts"}
    return WatchProduction(**{**unused, "node_home": str(localnet_home()), "store_url": store_url, "shard_ids": ()})


def attempting(folder: Path) -> WatchProduction:
    """Return what a watcher of the localnet node works with, unsigned and in this process."""
    return WatchProduction(
        node_home=str(localnet_home()),
        context_of=lambda selector: epoch_context_from_node(localnet_home(), selector),
        shard_ids=(),
        state_walk=StateWalk.AUTO,
        read_limit_bytes_per_s=None,
        kernel=choose_kernel("auto"),
        publisher_for=lambda context: EpochPublisher(str(folder / "out"), None, default_encoding(context.protocol_version), 1),
        store_url=str(folder / "out"),
        settings=ProductionSettings.in_folder(str(folder / "work")),
        writes_dataset=lambda found: True,
        open_executor=InProcessExecutor,
        terms=ClaimTerms(),
    )


class EndedError(Exception):
    """What ends an attempt in these tests."""


def test_an_attempt_writes_no_dataset_where_it_is_told_so(tmp_path: Path) -> None:
    """Which is asked before each attempt, of the epoch that it is for."""
    told, asked = Told(), list[EpochInput]()
    epoch_id = epoch_context_from_node(localnet_home()).epoch_id

    def asks_for_none(found: EpochInput) -> bool:
        asked.append(found)
        return False

    work = replace(attempting(tmp_path), writes_dataset=asks_for_none)
    result = work.produce(epoch_id, told, lambda: None, lambda _: None)
    assert [found.context.epoch_id for found in asked] == [epoch_id]
    assert result.manifest_revision == 1 and "export" not in {step.stage for step in told.stages}


def test_an_attempt_is_ended_from_outside_at_its_next_result(tmp_path: Path) -> None:
    """The error passes as it is, no manifest is written, and the claim is given back."""
    told, claims = Told(), list[HeldClaim | None]()

    def until_first_part() -> None:
        if told.stages and (told.stages[-1].stage, told.stages[-1].done) == ("publish", 1):
            raise EndedError

    with pytest.raises(EndedError):
        attempting(tmp_path).produce(epoch_context_from_node(localnet_home()).epoch_id, told, until_first_part, claims.append)
    assert [claim is None for claim in claims] == [False, True]
    assert (told.stages[-1].stage, told.stages[-1].done) == ("publish", 1)
    assert not list((tmp_path / "out").rglob("manifest.json"))
    assert not list((tmp_path / "out").rglob("claim.json"))


def test_a_lost_claim_ends_an_attempt_at_its_next_result(tmp_path: Path) -> None:
    """Once it is found lost; nothing is put."""
    told = Told()

    def lose(claim: HeldClaim | None) -> None:
        if claim is not None:
            (file,) = (tmp_path / "out").rglob("claim.json")
            file.unlink()
            layout = EpochLayout.of(epoch_context_from_node(localnet_home()))
            Claimant(open_store(str(tmp_path / "out")), layout, (0,), replace(this_holder(), host="rival.example", machine="")).acquire()
            with pytest.raises(ClaimedError):
                claim.renew()

    with pytest.raises(ClaimedError, match=r"rival\.example"):
        attempting(tmp_path).produce(epoch_context_from_node(localnet_home()).epoch_id, told, go_on, lose)
    assert told.stages == []


def chain_id() -> str:
    """Return the localnet node's chain."""
    return str(read_genesis_fields(localnet_home() / "genesis.json", ("chain_id",))["chain_id"])


def test_the_latest_pointer_says_what_is_published(tmp_path: Path) -> None:
    """None where it is not there."""
    assert production(str(tmp_path)).latest_published() is None
    pointer = LatestPointer(chain_id(), 17, CryptoHash(b"\1" * 32), 1, "ab" * 32)
    open_store(str(tmp_path)).put(latest_name(chain_id()), pointer.to_bytes())
    assert production(str(tmp_path)).latest_published() == 17


@pytest.mark.parametrize("damaged", [b"", b"{", b"rotten" * 100_000])
def test_a_damaged_latest_pointer_keeps_no_watcher_from_its_work(tmp_path: Path, damaged: bytes) -> None:
    """The next publisher replaces it; a watcher that waited for that might never end."""
    open_store(str(tmp_path)).put(latest_name(chain_id()), damaged)
    assert production(str(tmp_path)).latest_published() is None


def test_a_watcher_makes_the_deltas_of_an_epoch(tmp_path: Path) -> None:
    """When it is published; and where an attempt was killed right after that, when it is found published."""
    folder = shutil.copytree(published_ladder(), tmp_path / "out")
    (epoch,) = folder.glob("chain_id=*/epoch_height=6/*")
    wanted = {path.relative_to(epoch): path.read_bytes() for path in (epoch / "deltas").rglob("*.arrow")}
    shutil.rmtree(epoch)
    (folder / epoch.parents[1].name / "catalogue.json").unlink()
    ladder = DeltaLadder(2, str(tmp_path / "work" / "build"), "auto", str(localnet_home()))
    work, told = replace(attempting(tmp_path), ladder=ladder), Told()
    epoch_id = epoch_context_from_node(localnet_home()).epoch_id
    work.produce(epoch_id, told, go_on, lambda _: None)
    made = {path.relative_to(epoch): path.read_bytes() for path in (epoch / "deltas").rglob("*.arrow")}
    assert made == wanted
    shutil.rmtree(epoch / "deltas")
    assert work.find_published(epoch_id) is not None
    assert {path.relative_to(epoch): path.read_bytes() for path in (epoch / "deltas").rglob("*.arrow")} == made
