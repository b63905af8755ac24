"""What a look before a run judges: space, memory, open files, the destination's promises, a node's snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.near.node.node_home import read_node_home
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.stage_costs import GIB, StageCosts
from pipelines.producing.preflight import disk_space
from pipelines.producing.preflight.destination import probe_destination, probe_findings
from pipelines.producing.preflight.disk_space import FolderNeed, FreeSpace, space_findings
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict, require_no_failure
from pipelines.producing.preflight.look import RunPlace, RunSize, folder_findings
from pipelines.producing.preflight.machine import memory_finding, open_files_finding, settings_finding, table_count
from pipelines.producing.preflight.node import snapshots_finding
from pipelines.producing.preflight.run_needs import WORKER_MEMORY_BYTES_MAX, RunNeeds, run_forecast
from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import InvalidInputError, ObjectMismatchError, StoreDeniedError
from schemas.published.object_layout import PROBE_FOLDER
from tests.support.productions import new_store_url

MIB = 1 << 20


@contextmanager
def _free(monkeypatch: pytest.MonkeyPatch, size: int, files: int | None = None, device: int = 1) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(disk_space, "free_space", lambda _folder: FreeSpace(device, size, files, writable=True))
        yield


def test_folders_of_one_file_system_share_its_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would fit; the remedy names both options and what is missing."""
    needs = [FolderNeed("--work", tmp_path, 600 * MIB, 600 * MIB), FolderNeed("--to", tmp_path / "to", 600 * MIB, 600 * MIB)]
    with _free(monkeypatch, 1000 * MIB):
        (finding,) = space_findings(needs)
        (alone,) = space_findings(needs[:1])
    assert finding.verdict is PreflightVerdict.FAIL and alone.verdict is PreflightVerdict.OK
    assert "not enough space: 1000.0 MiB free, the run puts about 1.2 GiB there" in finding.found
    assert finding.remedy.startswith("Free 264.0 MiB there, or name another place with --work and --to")


def test_what_an_earlier_run_has_left_need_not_be_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerun goes on with it."""
    (tmp_path / "build").mkdir()
    with (tmp_path / "build" / "interior").open("wb") as file:
        file.truncate(900 * MIB)
    need = FolderNeed("--work", tmp_path, 1000 * MIB, 1000 * MIB)
    with _free(monkeypatch, 200 * MIB):
        (fresh,), (rerun,) = space_findings([need]), space_findings([replace(need, there=(tmp_path / "build", tmp_path / "none"))])
    assert (fresh.verdict, rerun.verdict) == (PreflightVerdict.FAIL, PreflightVerdict.OK)


def test_what_may_be_needed_is_a_warning_and_too_few_files_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may end well with less; not without names for its objects."""
    need = FolderNeed("--work", tmp_path, 100 * MIB, 1000 * MIB, files=50)
    with _free(monkeypatch, 500 * MIB, files=50):
        (tight,) = space_findings([need])
    with _free(monkeypatch, 5000 * MIB, files=49):
        (nameless,) = space_findings([need])
    assert tight.verdict is PreflightVerdict.WARN and "up to 1000.0 MiB, and 64.0 MiB should stay free" in tight.found
    assert nameless.verdict is PreflightVerdict.FAIL and "49 files may still be made there, the run makes 50" in nameless.found


def test_a_folder_that_is_to_be_made_has_the_space_of_the_one_around_it(tmp_path: Path) -> None:
    """Nothing is made."""
    (finding,) = space_findings([FolderNeed("--to", tmp_path / "a" / "b", 0, 0)])
    assert finding.verdict is PreflightVerdict.OK and "not known yet" in finding.found and not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the option that names it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    (finding,) = space_findings([FolderNeed("--work", tmp_path / "a", 0, 0)])
    assert (finding.verdict, finding.found, finding.where) == (PreflightVerdict.FAIL, "the folder can't be written", str(tmp_path))
    assert "--work" in finding.remedy


def test_where_nothing_is_free_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is not known what a run takes."""
    with _free(monkeypatch, 0):
        (finding,) = space_findings([FolderNeed("--to", tmp_path, 0, 0)])
    assert finding.verdict is PreflightVerdict.FAIL


def test_records_that_are_rolled_forward_lie_beside_those_of_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does what changed; in each lane. In a folder of datasets that stay, what changed alone comes on top."""
    size = RunSize(EpochShape((GIB,)), early=True, exported=False, compressed=True)
    place = RunPlace(None, str(tmp_path), epochs=4, lanes=2)
    rolled = replace(place, rolls_forward=True)
    with _free(monkeypatch, 2 * (size.needs.dataset_bytes + size.needs.interiors_bytes) + 65 * MIB):
        assert folder_findings(place, None, size)[0].verdict is PreflightVerdict.OK
        (tight,) = folder_findings(rolled, None, size)
    assert tight.verdict is PreflightVerdict.WARN and tight.found.startswith("3.2 GiB free")
    with _free(monkeypatch, size.needs.dataset_bytes + size.needs.changes_bytes):
        assert folder_findings(rolled, None, size)[0].verdict is PreflightVerdict.FAIL
        assert folder_findings(place, None, size)[0].verdict is PreflightVerdict.WARN
    with _free(monkeypatch, 4 * size.needs.dataset_bytes + 65 * MIB, device=2):
        kept = replace(place, work_url=new_store_url(), dataset_url=str(tmp_path))
        findings = folder_findings(kept, None, size), folder_findings(replace(kept, rolls_forward=True), None, size)
    assert [finding.verdict for (finding,) in findings] == [PreflightVerdict.OK, PreflightVerdict.WARN]


def test_memory_is_judged_by_the_workers_that_fit() -> None:
    """One must; fewer than were asked for is a warning that names how many."""
    assert memory_finding(10 * GIB, GIB, 4).verdict is PreflightVerdict.OK
    fewer = memory_finding(3 * GIB, GIB, 4)
    assert fewer.verdict is PreflightVerdict.WARN and "--workers 2" in fewer.remedy
    assert memory_finding(GIB - 1, GIB, 1).verdict is PreflightVerdict.FAIL
    assert "--workers 2 --read-limit" in settings_finding(16, 3 * GIB, GIB, beside_node=True).found
    assert "--workers 8 --read-limit" in settings_finding(16, 64 * GIB, GIB, beside_node=True).found
    assert settings_finding(16, 64 * GIB, GIB, beside_node=False).found.endswith("--workers 16")


def test_every_table_of_a_database_is_held_open(tmp_path: Path) -> None:
    """So the limit must be above their number."""
    for name in ("000001.sst", "000002.blob", "LOG"):
        (tmp_path / name).touch()
    assert table_count([tmp_path, tmp_path / "none"]) == 2
    assert open_files_finding(1000, 4096).verdict is PreflightVerdict.OK
    low = open_files_finding(20_000, 4096)
    assert low.verdict is PreflightVerdict.FAIL and "LimitNOFILE=" in low.remedy


def test_needs_grow_with_the_state() -> None:
    """Small states take little memory, large ones a worker's bound; a dataset that is there takes no space again."""
    small, large = (RunNeeds.of(EpochShape((size,)), StageCosts(), exported=False) for size in (MIB, 40 * GIB))
    assert small.worker_memory_bytes < 300 * MIB < large.worker_memory_bytes == WORKER_MEMORY_BYTES_MAX
    assert 27 * GIB < large.dataset_bytes < 28 * GIB and large.destination_objects > 1000
    assert RunNeeds.of(EpochShape((MIB,)), StageCosts(), exported=True).dataset_bytes == 0


def test_a_bounded_read_and_fewer_workers_take_longer() -> None:
    """By the same simulation as `statecast plan`."""
    shape = EpochShape((10 * GIB, 5 * GIB))
    fast, limited = (run_forecast(shape, StageCosts(), 16, limit, early=True).last_part_s for limit in (None, 10e6))
    assert limited > 1000 > fast
    assert run_forecast(shape, StageCosts(), 2, None, early=True).last_part_s > fast


@dataclass(frozen=True, slots=True)
class _CarelessStore(MemoryStore):
    """A store that breaks promises; its clock is so far ahead."""

    ahead_s: float = 0.0
    ignores_create: bool = False
    ignores_swap: bool = False
    stale: bool = False
    keeps: bool = False

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        stored = MemoryStore.put(self, name, data, create_only=create_only and not self.ignores_create)
        return replace(stored, modified=datetime.now(UTC) + timedelta(seconds=self.ahead_s))

    def get(self, name: str, start: int, stop: int) -> bytes:
        return b"stale" if self.stale else MemoryStore.get(self, name, start, stop)

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        return MemoryStore.put(self, name, data) if self.ignores_swap else MemoryStore.swap(self, name, data, expected)

    def delete(self, name: str) -> None:
        if self.keeps:
            raise StoreDeniedError(problem="not allowed", where=name)
        MemoryStore.delete(self, name)


def _verdicts(store: MemoryStore, *, for_claim: bool = True) -> dict[str, PreflightVerdict]:
    probe = probe_destination(store)
    assert probe is not None
    return {finding.name: finding.verdict for finding in probe_findings(probe, for_claim=for_claim)}


def test_a_store_that_keeps_its_promises_is_left_as_it_was() -> None:
    """Folder or not."""
    store = _CarelessStore("preflight-good")
    assert _verdicts(store) == {"destination": PreflightVerdict.OK, "clock": PreflightVerdict.OK}
    assert not list(store.list())


def test_a_probed_folder_is_left_as_it_was(tmp_path: Path) -> None:
    """Also its subfolders; one that is still to be made is not made."""
    probe = probe_destination(FileStore(str(tmp_path), durable=False))
    assert probe is not None and probe.exclusive and not probe.not_deleted
    assert not (tmp_path / PROBE_FOLDER).exists() and not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert probe_destination(FileStore(str(tmp_path / "none"), durable=False)) is None and not (tmp_path / "none").exists()


@pytest.mark.parametrize("broken", ["ignores_create", "ignores_swap"])
def test_a_store_that_ignores_conditions_is_refused_for_a_claim(broken: str) -> None:
    """Without a claim it is a warning."""
    store = _CarelessStore(f"preflight-{broken}", **{broken: True})
    assert _verdicts(store)["destination"] is PreflightVerdict.FAIL
    assert _verdicts(store, for_claim=False)["destination"] is PreflightVerdict.WARN
    probe = probe_destination(store)
    assert probe is not None and not list(store.list())
    header = "If-None-Match" if broken == "ignores_create" else "If-Match"
    found = probe_findings(probe, for_claim=True)[0].found
    assert f"the store takes no notice of {header}, so" in found


def test_bytes_that_do_not_come_back_and_a_probe_that_stays_are_said() -> None:
    """The object's name too."""
    with pytest.raises(ObjectMismatchError, match="other bytes"):
        probe_destination(_CarelessStore("preflight-stale", stale=True))
    assert not list(MemoryStore("preflight-stale").list())
    probe = probe_destination(_CarelessStore("preflight-keeps", keeps=True))
    assert probe is not None
    (left,) = (finding for finding in probe_findings(probe, for_claim=True) if finding.name == "delete")
    assert left.verdict is PreflightVerdict.WARN and probe.name in left.found and "not allowed" in left.found


@pytest.mark.parametrize(
    ("ahead_s", "verdict"),
    [(0.0, PreflightVerdict.OK), (-40.0, PreflightVerdict.WARN), (100.0, PreflightVerdict.WARN), (-900.0, PreflightVerdict.FAIL)],
)
def test_two_clocks_may_differ_by_what_leases_bear(ahead_s: float, verdict: PreflightVerdict) -> None:
    """The store's is compared with this machine's."""
    assert _verdicts(_CarelessStore(f"preflight-clock{ahead_s}", ahead_s=ahead_s))["clock"] is verdict


@pytest.mark.parametrize(
    ("config", "there", "verdict"),
    [
        ("Enabled", False, PreflightVerdict.OK),
        ("EveryEpoch", True, PreflightVerdict.OK),
        ("Disabled", True, PreflightVerdict.WARN),
        ("ForReshardingOnly", False, PreflightVerdict.FAIL),
        ("", True, PreflightVerdict.OK),
        ("", False, PreflightVerdict.WARN),
        ("Unheard", False, PreflightVerdict.WARN),
    ],
)
def test_a_node_that_makes_no_snapshots_is_told(config: str, there: bool, verdict: PreflightVerdict, tmp_path: Path) -> None:
    """By its config.json and by what is there; the remedy names the setting."""
    data = tmp_path / "data"
    data.mkdir()
    if config:
        (tmp_path / "config.json").write_text(f'{{"store": {{"state_snapshot_config": {{"state_snapshot_type": "{config}"}}}}}}')
    if there:
        (data / "state_snapshot" / "block" / "data").mkdir(parents=True)
        (data / "state_snapshot" / "block" / "data" / "CURRENT").touch()
    finding = snapshots_finding(read_node_home(tmp_path))
    assert finding.verdict is verdict
    assert ("state_snapshot_type" in finding.remedy) == (verdict is not PreflightVerdict.OK)


@pytest.mark.parametrize(
    "config", ['{"store": {"state_snapshot_config": 1}}', '{"store": {"state_snapshot_config": {"state_snapshot_type": [1]}}}']
)
def test_a_config_of_another_form_leaves_snapshots_to_the_release(config: str, tmp_path: Path) -> None:
    """And is no error: the node reads it otherwise, or not at all."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text(config)
    assert read_node_home(tmp_path).makes_snapshots is None


def test_the_first_failure_is_raised_and_the_others_named() -> None:
    """Warnings let a run begin."""
    ok, warn = PreflightFinding("a", PreflightVerdict.OK, "fine"), PreflightFinding("b", PreflightVerdict.WARN, "so so")
    require_no_failure([ok, warn])
    with pytest.raises(InvalidInputError, match=r"bad \[there\]\. Mend it\. Also to be mended: d\.") as raised:
        require_no_failure(
            [
                warn,
                PreflightFinding("c", PreflightVerdict.FAIL, "bad", "Mend it.", "there"),
                PreflightFinding("d", PreflightVerdict.FAIL, "worse"),
            ]
        )
    assert raised.value.exit_code == 2


def test_the_space_of_a_real_file_system_is_what_the_system_says(tmp_path: Path) -> None:
    """Of this user, not of root."""
    found = os.statvfs(tmp_path)
    assert abs(disk_space.free_space(tmp_path / "new").size - found.f_bavail * found.f_frsize) < GIB
