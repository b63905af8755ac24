"""A scrub finds every kind of damage, and a repair puts right only what the signed manifest vouches for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import pytest

from pipelines.bucket.published_epoch import read_manifest
from pipelines.execution.executor import Executor, Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import SilentProgress
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.keeping.findings import FindingKind
from pipelines.keeping.repair_epoch import OWN_STORE
from pipelines.keeping.scrub_chain import ChainScrub, ScrubOutcome, ScrubResult, ScrubSettings
from pipelines.keeping.scrub_epoch import MISSING_REVISIONS_MAX
from pipelines.producing.publish.signing import sign_payload
from pipelines.stores.open_store import open_store
from pipelines.trust.signatures import TrustRule
from schemas.errors import EpochNotReadyError, SignatureError
from schemas.ids import PartId
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import REVISION_MAX, catalogue_name, latest_name
from schemas.published.public_key import PublicKey
from schemas.published.scrub_state import WHOLE_PPM
from tests.support.fault_server import fault_server
from tests.support.published import public_key, session_folder
from tests.support.stored_bytes import flip_bit, stored_bytes
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch

lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

R = TypeVar("R")
LAYOUT = epoch_layout(1)
WAIT_S = 120
WEB_SEED = "https://mirror.example/epoch/"


def part(idx: int) -> str:
    """The name of a part."""
    return LAYOUT.state_part(0, PartId(idx, NUM_PARTS))


@lru_cache
def published() -> Path:
    """Return a folder with epoch 1 in two revisions of its manifest. It must not be changed."""
    folder = session_folder() / "scrubbed"
    publish_epoch(str(folder), 1, complete=False)
    publish_epoch(str(folder), 1)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(published(), tmp_path / "store"))


def trust(name: str = "first") -> TrustRule:
    """A rule of one key."""
    return TrustRule((PublicKey.parse(public_key(name)),))


def scrub(root: Path | str, *mirrors: Path | str, executor: Executor | None = None, **changes: object) -> ScrubOutcome:
    """Scrub epoch 1 in full, in this process."""
    options: dict[str, object] = {"sample_ppm": WHOLE_PPM, "trust": trust()} | changes
    settings = ScrubSettings(str(root), (LAYOUT,), mirror_urls=tuple(map(str, mirrors)), **options)  # type: ignore[arg-type]
    (outcome,) = ChainScrub(StageRunner(executor or InProcessExecutor(), SilentProgress()), settings).run().epochs
    return outcome


def objects(root: Path) -> dict[str, bytes]:
    """All objects of epoch 1."""
    return {info.name: stored_bytes(open_store(str(root)), info.name) for info in open_store(str(root)).list(LAYOUT.folder)}


def flip(root: Path, name: str, position: int = -1) -> None:
    """Change one bit of an object."""
    flip_bit(root / name, position)


def truncate(root: Path, name: str) -> None:
    """Lose an object's last byte."""
    (root / name).write_bytes((root / name).read_bytes()[:-1])


def empty(root: Path, name: str) -> None:
    """Lose all of an object but its name."""
    (root / name).write_bytes(b"")


def delete(root: Path, name: str) -> None:
    """Lose an object."""
    (root / name).unlink()


def swap_with_part_4(root: Path, name: str) -> None:
    """Give an object another part's bytes, and that one its own."""
    data = (root / name).read_bytes()
    (root / name).write_bytes((root / part(4)).read_bytes())
    (root / part(4)).write_bytes(data)


Damage = Callable[[Path, str], None]

NAMES = {
    "part": part(2),
    "header": LAYOUT.state_header(0),
    "statement": LAYOUT.shard_statement(0),
    "torrent": LAYOUT.torrent(0),
    "manifest": LAYOUT.manifest,
    "newest revision": LAYOUT.manifest_revision(2),
    "older revision": LAYOUT.manifest_revision(1),
}


def test_an_undamaged_epoch_is_good(root: Path) -> None:
    """Every part is read; nothing is found, written or left behind."""
    before = objects(root)
    outcome = scrub(root)
    assert outcome.scrubbed.findings == ()
    assert (outcome.scrubbed.parts, outcome.scrubbed.parts_read) == (NUM_PARTS, NUM_PARTS)
    assert outcome.scrubbed.bytes_read == sum(len(data) for name, data in before.items() if "state_part" in name)
    assert objects(root) == before


@pytest.mark.parametrize(
    ("what", "damage"),
    # An epoch without a manifest is not published, so that nothing is compared with it.
    [(what, damage) for what in NAMES for damage in (flip, truncate, empty, delete) if (what, damage) != ("manifest", delete)],
)
def test_every_damage_is_found_and_repaired_from_a_mirror(root: Path, what: str, damage: Damage) -> None:
    """Byte for byte, whatever the object and whatever happened to it."""
    before = objects(root)
    name = NAMES[what]
    damage(root, name)
    found = scrub(root)
    assert [(finding.kind, finding.object_name) for finding in found.scrubbed.harmful] == [
        (FindingKind.MISSING if damage is delete else FindingKind.WRONG, name)
    ]
    assert found.repairs == () and len(found.scrubbed.harmful) == 1
    repaired = scrub(root, published())
    assert [(repair.finding.object_name, repair.is_done) for repair in repaired.repairs] == [(name, True)]
    assert repaired.repaired == len(repaired.scrubbed.harmful)
    assert objects(root) == before
    assert scrub(root).scrubbed.findings == ()


def test_two_parts_that_changed_places_are_found(root: Path) -> None:
    """Each is a right part at the wrong place."""
    before = objects(root)
    swap_with_part_4(root, part(2))
    assert [finding.object_name for finding in scrub(root).scrubbed.harmful] == [part(2), part(4)]
    assert scrub(root, published()).repaired == 2
    assert objects(root) == before


def test_a_foreign_object_is_reported_and_stays(root: Path) -> None:
    """In a shard's folder it is in nodes' way; elsewhere it does no harm. No repair deletes it."""
    foreign = [f"{LAYOUT.folder}/README", f"{LAYOUT.shard_folder(0)}/state_part_000009_of_000010", f"{LAYOUT.shard_folder(0)}/x"]
    for name in foreign:
        (root / name).write_bytes(b"mine")
    outcome = scrub(root, published())
    assert [(finding.object_name, finding.harmless) for finding in outcome.scrubbed.findings] == list(
        zip(foreign, (True, False, False), strict=True)
    )
    assert (outcome.repaired, len(outcome.scrubbed.harmful) - outcome.repaired) == (0, 2)
    assert all((root / name).read_bytes() == b"mine" for name in foreign)


def test_a_manifest_is_repaired_from_its_own_revision(root: Path) -> None:
    """No mirror is needed; nothing else is touched."""
    before = objects(root)
    flip(root, LAYOUT.manifest)
    outcome = scrub(root, repair=True)
    assert [(repair.finding.object_name, repair.source_id) for repair in outcome.repairs] == [(LAYOUT.manifest, OWN_STORE)]
    assert objects(root) == before


def test_a_manifest_whose_revision_is_damaged_too_comes_from_a_mirror(root: Path) -> None:
    """The older revision is not taken where a mirror has the newest, signed."""
    before = objects(root)
    empty(root, LAYOUT.manifest)
    empty(root, LAYOUT.manifest_revision(2))
    outcome = scrub(root, published())
    assert next(repair for repair in outcome.repairs if repair.finding.object_name == LAYOUT.manifest).source_id != OWN_STORE
    scrub(root, published())
    assert objects(root) == before


def test_a_torrent_is_made_of_the_parts(root: Path) -> None:
    """Without any mirror, where all parts are right; where one is not, it is said."""
    before = objects(root)
    delete(root, LAYOUT.torrent(0))
    flip(root, part(1))
    outcome = scrub(root, repair=True)
    assert outcome.repaired == 0
    assert "parts are wrong or missing" in next(r.problem for r in outcome.repairs if r.finding.object_name == LAYOUT.torrent(0))
    (root / part(1)).write_bytes(before[part(1)])
    assert scrub(root, repair=True).repaired == 1
    assert objects(root) == before


@pytest.mark.parametrize("share", range(0, 100, 3))
def test_a_flipped_bit_anywhere_in_a_torrent_is_found(root: Path, share: int) -> None:
    """In its info dictionary, in its piece layers, and in what lies outside of both."""
    size = len((root / LAYOUT.torrent(0)).read_bytes())
    flip(root, LAYOUT.torrent(0), size * share // 100)
    assert [finding.object_name for finding in scrub(root).scrubbed.harmful] == [LAYOUT.torrent(0)]


@pytest.mark.parametrize("layers", [None, [], {}], ids=str)
def test_a_torrent_without_its_piece_layers_is_found(root: Path, tmp_path: Path, layers: object) -> None:
    """No info hash covers them, and who reads it would verify no piece alone; one from a mirror is refused."""
    before, name = objects(root), LAYOUT.torrent(0)
    document = lt.bdecode((root / name).read_bytes())
    del document[b"piece layers"]
    stripped = lt.bencode(document if layers is None else {**document, b"piece layers": layers})
    (root / name).write_bytes(stripped)
    liar = Path(shutil.copytree(published(), tmp_path / "liar"))
    (liar / name).write_bytes(stripped)
    assert [finding.object_name for finding in scrub(root).scrubbed.harmful] == [name]
    assert scrub(root, liar, published()).repairs[0].source_id == f"file://{published()}"
    assert objects(root) == before


def test_a_mirrors_trackers_do_not_come_in_with_its_torrent(tmp_path: Path) -> None:
    """The info hashes do not cover them: web seeds and trackers are the manifest's."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    publish_epoch(str(ours), 1)
    publish_epoch(str(theirs), 1, web_seeds=(WEB_SEED,))
    before = objects(ours)
    assert WEB_SEED.encode() in (theirs / LAYOUT.torrent(0)).read_bytes()
    delete(ours, LAYOUT.torrent(0))
    outcome = scrub(ours, theirs)
    assert outcome.repairs[0].source_id == f"file://{theirs}"
    assert objects(ours) == before


@pytest.mark.parametrize("what", ["part", "header", "statement", "torrent", "older revision"])
def test_a_lying_mirror_is_refused_and_the_next_one_asked(root: Path, tmp_path: Path, what: str) -> None:
    """Nothing of what it says is put; an honest mirror behind it is."""
    before, name = objects(root), NAMES[what]
    liar = Path(shutil.copytree(published(), tmp_path / "liar"))
    flip(liar, name, 40)
    damaged = name if what != "torrent" else part(0)
    delete(root, name)
    if what == "torrent":
        # Else it would be made of the parts.
        delete(root, damaged)
        delete(liar, damaged)
    refused = scrub(root, liar)
    problem = next(repair.problem for repair in refused.repairs if repair.finding.object_name == name)
    assert "refused" in problem and str(liar) in problem
    assert refused.repaired == 0
    assert not (root / name).exists()
    after = scrub(root, liar, published())
    assert after.repaired == len(after.scrubbed.harmful)
    assert objects(root) == before


def test_a_torrent_of_other_parts_is_refused(root: Path, tmp_path: Path) -> None:
    """It is well formed, and its info hashes are not the manifest's."""
    liar, name = Path(shutil.copytree(published(), tmp_path / "liar")), LAYOUT.torrent(0)
    flip(liar, name, (liar / name).read_bytes().index(b"6:pieces") + 20)
    for folder in (root, liar):
        delete(folder, part(0))
    delete(root, name)
    outcome = scrub(root, liar)
    assert outcome.repaired == 0
    assert "the manifest names" in next(repair.problem for repair in outcome.repairs if repair.finding.object_name == name)


def test_a_revision_that_another_key_has_signed_is_refused(root: Path, tmp_path: Path) -> None:
    """It is well formed, and no trusted key has signed it."""
    other = tmp_path / "other"
    publish_epoch(str(other), 1, complete=False, key="second")
    delete(root, LAYOUT.manifest_revision(1))
    outcome = scrub(root, other)
    assert outcome.repaired == 0 and "no trusted key" in outcome.repairs[0].problem
    assert scrub(root, other, published()).repaired == 1


def test_a_signed_revision_under_another_ones_name_is_refused(root: Path, tmp_path: Path) -> None:
    """A mirror may replay what is true elsewhere."""
    liar = Path(shutil.copytree(published(), tmp_path / "liar"))
    shutil.copyfile(liar / LAYOUT.manifest_revision(2), liar / LAYOUT.manifest_revision(1))
    delete(root, LAYOUT.manifest_revision(1))
    outcome = scrub(root, liar)
    assert outcome.repaired == 0 and "it is revision 2" in outcome.repairs[0].problem


def test_a_mirror_that_is_rotten_in_one_place_is_asked_for_others(root: Path, tmp_path: Path) -> None:
    """A repair is partial then."""
    mirror = Path(shutil.copytree(published(), tmp_path / "mirror"))
    flip(mirror, part(0))
    for idx in range(3):
        delete(root, part(idx))
    outcome = scrub(root, mirror)
    assert (outcome.repaired, len(outcome.scrubbed.harmful) - outcome.repaired) == (2, 1)


def test_a_mirror_behind_a_web_server_will_do(root: Path, tmp_path: Path) -> None:
    """As for a fetch."""
    before = objects(root)
    delete(root, part(3))
    with fault_server(published(), tmp_path / "log", everything=True) as mirror:
        assert scrub(root, mirror.url).repaired == 1
    assert objects(root) == before


def test_an_unsigned_revision_is_not_taken_from_a_mirror(root: Path) -> None:
    """No digest says what an older revision was: only a trusted key's signature does."""
    delete(root, LAYOUT.manifest_revision(1))
    outcome = scrub(root, published(), trust=None)
    assert outcome.repaired == 0 and "--trust-key" in outcome.repairs[0].problem


def test_a_part_is_repaired_without_trusted_keys(root: Path) -> None:
    """The store's own manifest says what its bytes are."""
    before = objects(root)
    delete(root, part(3))
    assert scrub(root, published(), trust=None).repaired == 1
    assert objects(root) == before


def test_a_manifest_of_another_publisher_is_refused(root: Path) -> None:
    """Nothing of the epoch is compared with it."""
    with pytest.raises(SignatureError):
        scrub(root, trust=trust("second"))


def test_a_revision_is_only_a_number(root: Path) -> None:
    """Of all that a manifest says came before it, a scrub names the first that are missing and no more."""
    stored = read_manifest(open_store(str(root)), LAYOUT)
    assert stored is not None
    (root / LAYOUT.manifest).write_bytes(sign_payload(replace(stored.manifest, revision=REVISION_MAX).to_payload(), ()).to_bytes())
    missing = [found for found in scrub(root, trust=None).scrubbed.findings if found.kind is FindingKind.MISSING]
    assert [found.object_name for found in missing] == [LAYOUT.manifest_revision(number) for number in range(3, 3 + MISSING_REVISIONS_MAX)]


def test_a_broken_signature_is_found(root: Path) -> None:
    """The payload is right, and no signature holds any more."""
    name = LAYOUT.manifest_revision(1)
    data = (root / name).read_bytes()
    position = data.index(b'"sig":"') + 10
    (root / name).write_bytes(data[:position] + (b"A" if data[position : position + 1] != b"A" else b"B") + data[position + 1 :])
    assert [(finding.object_name, finding.problem) for finding in scrub(root).scrubbed.findings] == [
        (name, "the signature of a trusted key does not hold")
    ]
    assert scrub(root, published()).repaired == 1


def test_samples_go_on_where_the_last_one_ended(root: Path) -> None:
    """One part of five at a time: five scrubs read all, and find the rotten one once."""
    data = bytearray((root / part(2)).read_bytes())
    data[0] ^= 1
    (root / part(2)).write_bytes(data)
    outcomes = [scrub(root, sample_ppm=WHOLE_PPM // NUM_PARTS) for _ in range(NUM_PARTS)]
    assert [outcome.scrubbed.parts_read for outcome in outcomes] == [1] * NUM_PARTS
    assert [outcome.scrubbed.window.start_ppm for outcome in outcomes] == [number * WHOLE_PPM // NUM_PARTS for number in range(NUM_PARTS)]
    assert sum(len(outcome.scrubbed.harmful) for outcome in outcomes) == 1


def test_a_sample_finds_missing_and_cut_parts_wherever_they_are(root: Path) -> None:
    """Names and sizes of all parts are looked up; bytes of a few are read."""
    delete(root, part(1))
    truncate(root, part(3))
    for _ in range(2):
        outcome = scrub(root, sample_ppm=WHOLE_PPM // NUM_PARTS)
        assert [finding.object_name for finding in outcome.scrubbed.harmful] == [part(1), part(3)]


def test_a_damaged_memory_of_samples_begins_anew(root: Path) -> None:
    """And is harmless."""
    scrub(root, sample_ppm=WHOLE_PPM // 2)
    (root / LAYOUT.scrub).write_bytes(b"rotten")
    outcome = scrub(root, sample_ppm=WHOLE_PPM // 2)
    assert (outcome.scrubbed.window.start_ppm, outcome.scrubbed.findings) == (0, ())
    assert scrub(root, sample_ppm=WHOLE_PPM // 2).scrubbed.window.start_ppm == WHOLE_PPM // 2


def test_an_epoch_without_a_manifest_is_not_scrubbed(root: Path) -> None:
    """A killed deletion leaves the same."""
    delete(root, LAYOUT.manifest)
    with pytest.raises(EpochNotReadyError):
        scrub(root, published())


def scrub_chain(root: Path, *epoch_heights: int, **options: object) -> ScrubResult:
    """Scrub some epochs and what lies beside them."""
    layouts = tuple(map(epoch_layout, epoch_heights))
    settings = ScrubSettings(str(root), layouts, WHOLE_PPM, chain_id=CHAIN_ID, **{"trust": trust(), **options})  # type: ignore[arg-type]
    return ChainScrub(silent_runner(), settings).run()


@pytest.mark.parametrize("name", [latest_name(CHAIN_ID), catalogue_name(CHAIN_ID)])
@pytest.mark.parametrize("damage", [flip, empty])
def test_a_damaged_pointer_or_catalogue_is_made_anew(root: Path, name: str, damage: Damage) -> None:
    """From the manifests, byte for byte; found without a repair, too."""
    before = (root / name).read_bytes()
    damage(root, name)
    found = scrub_chain(root, 1)
    assert [finding.object_name for finding in found.harmful] == [name]
    assert scrub_chain(root, 1, repair=True).repaired == 1
    assert (root / name).read_bytes() == before


def test_a_pointer_to_an_epoch_that_is_not_there_is_wrong(root: Path) -> None:
    """It is moved to the newest complete one."""
    before = (root / latest_name(CHAIN_ID)).read_bytes()
    (root / latest_name(CHAIN_ID)).write_bytes(LatestPointer(CHAIN_ID, 9, epoch_layout(9).epoch_id, 1, "ab" * 32).to_bytes())
    assert scrub_chain(root, 1, repair=True).repaired == 1
    assert (root / latest_name(CHAIN_ID)).read_bytes() == before


def test_an_epoch_of_another_publisher_hides_no_other(root: Path) -> None:
    """It counts as wrong, and the rest is scrubbed."""
    publish_epoch(str(root), 2, key="second")
    delete(root, part(1))
    result = scrub_chain(root, 2, 1)
    assert [finding.object_name for finding in result.harmful] == [epoch_layout(2).manifest, part(1)]


@dataclass(frozen=True, slots=True)
class Dying(InProcessExecutor):
    """Fails unexpectedly, once a lease is there."""

    store_url: str = ""

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Wait for the lease, then die."""
        deadline = time.monotonic() + WAIT_S
        while not list(open_store(self.store_url).list(LAYOUT.leases_folder)):
            assert time.monotonic() < deadline, "no lease came"
        raise NameError("name 'x' is not defined")


def test_a_scrub_that_fails_unexpectedly_leaves_no_lease(root: Path) -> None:
    """A collection need not wait for its end."""
    store = open_store(str(root))
    with pytest.raises(NameError):
        scrub(root, executor=Dying(store_url=str(root)))
    deadline = time.monotonic() + WAIT_S
    while list(store.list(LAYOUT.leases_folder)):
        assert time.monotonic() < deadline, "the lease stays"


def test_an_epoch_that_is_collected_meanwhile_is_passed_over(root: Path) -> None:
    """Where there are others."""
    result = scrub_chain(root, 3, 1)
    assert [outcome.scrubbed.layout for outcome in result.epochs] == [LAYOUT]
