"""Producers and claims, as the command line shows them; and what --if-missing makes of having nothing to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.bucket.epoch_claim import Claimant, HeldClaim
from pipelines.bucket.holder_process import this_holder
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.stage_runner import StageRunner
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.near.node.node_columns import STATE_SYNC_HASHES
from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import OPENERS, MemoryStore
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import ClaimedError, StoreDeniedError
from schemas.nearcore.epoch_context import EpochContext
from schemas.published.claim import Claim
from schemas.published.object_layout import EpochLayout
from tests.support.commands import objects_in, statecast
from tests.support.nodes import change_rows, copied, localnet_home
from tests.support.productions import inject, meanwhile, new_store_url
from tests.support.published import produce, produce_localnet, published_localnet
from tests.support.refusals import assert_refused


def rival(to: object, shard_ids: tuple[int, ...] = (0, 1, 2, 3)) -> HeldClaim:
    """Let another machine's producer claim the localnet's newest epoch."""
    layout = EpochLayout.of(epoch_context_from_node(localnet_home()))
    holder = replace(this_holder(), host="rival.example", machine="")
    return Claimant(open_store(str(to)), layout, shard_ids, holder).acquire()


def test_a_claimed_epoch_is_refused_with_its_holder_and_expiry(tmp_path: Path) -> None:
    """Exit code 12, and nothing but the claim is there."""
    to = tmp_path / "out"
    rival(to)
    assert_refused(produce_localnet(to, "--json"), "claimed", 12, to, "rival.example", str(datetime.now(UTC).year), "--ignore-claim")
    assert [name.rpartition("/")[2] for name in objects_in(to)] == ["claim.json"]


def test_a_claim_can_be_ignored(tmp_path: Path) -> None:
    """The epoch is published, and the other's claim is left as it is."""
    to = tmp_path / "out"
    rival(to)
    outcome = produce_localnet(to, "--ignore-claim")
    assert outcome.code == 0, outcome.stderr
    (claim,) = to.rglob("claim.json")
    assert [lease.holder.host for lease in Claim.parse(claim.read_bytes(), "").leases] == ["rival.example"]


def test_other_shards_than_the_claimed_ones_are_produced(tmp_path: Path) -> None:
    """Nodes that track different shards do not keep each other waiting."""
    to = tmp_path / "out"
    rival(to, (0, 1))
    assert produce_localnet(to, "--shard-id", 2).code == 0
    assert produce_localnet(to, "--shard-id", 1).code == 12


def test_a_claim_is_given_back(tmp_path: Path) -> None:
    """After a run that ends well, and after one that fails."""
    to = tmp_path / "out"
    home = copied(localnet_home(), tmp_path)
    shutil.rmtree(home / "data" / "state_snapshot")
    assert produce(to, "--node-home", home, "--state-walk", "never", "--epoch", 4).code == 10
    assert not list(to.rglob("claim.json"))
    assert produce_localnet(to).code == 0
    assert not list(to.rglob("claim.json"))


def test_a_producer_that_lost_its_claim_writes_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another producer took it over meanwhile; the parts stay for it."""
    to = new_store_url()

    def take_over() -> None:
        (claim,) = [info.name for info in open_store(to).list() if info.name.endswith("/claim.json")]
        open_store(to).delete(claim)
        rival(to)

    inject(monkeypatch, to, meanwhile("put", "state_part_", take_over))
    assert_refused(produce_localnet(to, "--json"), "claimed", 12, to, "rival.example")
    assert [info.name for info in open_store(to).list() if "state_part_" in info.name]


@pytest.fixture
def lose_claim(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets a rival take over the claim that a production holds, and the heartbeat, which beats only then, find that."""
    held: list[HeldClaim] = []

    @contextmanager
    def heartbeat_on_demand(claim: HeldClaim, *_: object) -> Iterator[None]:
        held.append(claim)
        yield
        claim.release()

    def lose(to: Path) -> None:
        (claim,) = to.rglob("claim.json")
        claim.unlink()
        rival(to)
        with pytest.raises(ClaimedError):
            held[-1].renew()

    monkeypatch.setattr("pipelines.producing.claimed_production.heartbeat", heartbeat_on_demand)
    return lose


def test_a_lost_claim_ends_a_production_at_its_next_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose_claim: Callable[[Path], None]
) -> None:
    """Once the heartbeat has found it lost, nothing more is built or put."""
    to = tmp_path / "out"

    def export_and_lose(*arguments: object) -> object:
        datasets = export_epoch(*arguments)  # type: ignore[arg-type]
        lose_claim(to)
        return datasets

    monkeypatch.setattr("pipelines.producing.produce_epoch.export_epoch", export_and_lose)
    assert_refused(produce_localnet(to, "--json"), "claimed", 12, to, "rival.example")
    assert not list(to.rglob("state_part_*"))


def test_a_lost_claim_ends_a_backfills_epoch_at_its_next_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose_claim: Callable[[Path], None]
) -> None:
    """Already while it is exported: of four shards one was begun."""
    to, exported = tmp_path / "out", list[EpochContext]()

    def lose_and_export(runner: StageRunner, source: FlatStateSource, context: EpochContext, settings: ExportSettings) -> object:
        exported.append(context)
        lose_claim(to)
        return export_epoch(runner, source, context, settings)

    monkeypatch.setattr("pipelines.producing.backfill.backfill_node.export_epoch", lose_and_export)
    outcome = statecast(
        *("backfill", "--node-home", localnet_home(), "--epochs", 6, "--to", to, "--work", tmp_path / "work"),
        *("--allow-unsigned", "--in-process", "--json"),
    )
    assert outcome.code == 3, outcome.stderr
    assert "rival.example" in outcome.document["steps"][0]["error"]["message"]
    assert len(exported) == 1
    assert not list(to.rglob("state_part_*"))


class DeniedStore(MemoryStore):
    """A store that may be read and not be written."""

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """Refuse."""
        raise StoreDeniedError(problem="the store refuses access", where=name)

    swap = put  # type: ignore[assignment]


def test_a_bucket_that_refuses_writes_is_noticed_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 30, and no export was begun: it would have made the work folder."""
    to = new_store_url()
    monkeypatch.setitem(OPENERS, to.removeprefix("memory://"), DeniedStore)
    outcome = produce_localnet(to, "--json", work=tmp_path / "work")
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "store_denied")
    assert not (tmp_path / "work").exists()


@pytest.fixture
def without_epochs(tmp_path: Path) -> Iterator[Path]:
    """A node that has recorded no sync hash yet."""
    home = copied(localnet_home(), tmp_path)
    rows: dict[bytes, bytes | None] = {epoch_context_from_node(home, height).epoch_id: None for height in ("5", "6")}
    change_rows(home / "data", STATE_SYNC_HASHES, rows)
    yield home


def nothing_to_do(to: object, *options: object) -> str:
    """Run produce --if-missing both ways; it must say in one line that there is nothing to do, and why."""
    plain = produce(to, *options, "--if-missing")
    assert (plain.code, plain.stdout.count("\n")) == (0, 1), plain.stderr
    assert plain.stdout.startswith("nothing to do: ")
    outcome = produce(to, *options, "--if-missing", "--json")
    assert outcome.code == 0
    return str(outcome.document["nothing_to_do"])


def test_a_published_epoch_is_nothing_to_do() -> None:
    """As it is without the option, where JSON says true."""
    assert nothing_to_do(published_localnet(), "--node-home", localnet_home()) == "published"


def test_an_epoch_that_another_producer_holds_is_nothing_to_do(tmp_path: Path) -> None:
    """A scheduler runs again later."""
    rival(tmp_path)
    assert nothing_to_do(tmp_path, "--node-home", localnet_home()) == "claimed"


def test_a_node_without_a_new_epoch_is_nothing_to_do(tmp_path: Path, without_epochs: Path) -> None:
    """But an epoch that is named and is not there stays an error."""
    assert nothing_to_do(tmp_path / "out", "--node-home", without_epochs) == "not_ready"
    assert produce(tmp_path / "out", "--node-home", without_epochs).code == 11
    assert produce(tmp_path / "out", "--node-home", without_epochs, "--epoch", 99, "--if-missing").code == 11


def test_a_missing_epoch_is_produced(tmp_path: Path) -> None:
    """--if-missing changes nothing then."""
    outcome = produce_localnet(tmp_path / "out", "--if-missing", "--json")
    assert (outcome.code, outcome.document["manifest_revision"]) == (0, 1)


def test_a_node_that_can_not_be_read_stays_an_error(tmp_path: Path) -> None:
    """--if-missing forgives no failure."""
    assert produce(tmp_path / "out", "--node-home", tmp_path, "--if-missing").code == 10


def test_a_claim_that_can_not_be_read_is_not_overwritten(tmp_path: Path) -> None:
    """It may be a newer version's."""
    layout = EpochLayout.of(epoch_context_from_node(localnet_home()))
    FileStore(str(tmp_path)).put(layout.claim, b"{}")
    assert_refused(produce_localnet(tmp_path, "--json"), "claimed", 12, tmp_path, "can't be read")
    assert (tmp_path / layout.claim).read_bytes() == b"{}"
    assert produce_localnet(tmp_path, "--ignore-claim").code == 0


def test_a_backfill_holds_claims_too(tmp_path: Path) -> None:
    """An epoch that another producer holds fails alone."""
    rival(tmp_path / "out")
    outcome = statecast(
        *("backfill", "--node-home", localnet_home(), "--epochs", "5..6", "--to", tmp_path / "out", "--work", tmp_path / "work"),
        *("--allow-unsigned", "--in-process", "--json"),
    )
    assert outcome.code == 3, outcome.stderr
    assert outcome.document["failed_epochs"] == [6]
    assert len(list((tmp_path / "out").rglob("claim.json"))) == 1
