"""``statecast catalogue``, ``gc`` and ``scrub`` as commands: what they print and how they exit."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path

import pytest

from pipelines.bucket.lease_keeper import EpochLease
from pipelines.stores.open_store import open_store
from schemas.ids import PartId
from schemas.published.object_layout import catalogue_name
from tests.support.commands import Outcome, kill_when, objects_in, start_process, statecast
from tests.support.fault_server import fault_server
from tests.support.published import public_key, session_folder
from tests.support.published_ladder import published_ladder
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch


@lru_cache
def published() -> Path:
    """Return a folder with epochs 1 to 3, the second incomplete. It must not be changed."""
    folder = session_folder() / "three-epochs"
    for epoch_height in (1, 2, 3):
        publish_epoch(str(folder), epoch_height, complete=epoch_height != 2)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy."""
    return Path(shutil.copytree(published(), tmp_path / "store"))


def part(epoch_height: int, idx: int) -> str:
    """The name of a part."""
    return epoch_layout(epoch_height).state_part(0, PartId(idx, NUM_PARTS))


def scrub(*arguments: object) -> Outcome:
    """Run a scrub without Ray."""
    return statecast("scrub", *arguments, "--in-process")


class TestCatalogue:
    """``statecast catalogue``."""

    def test_a_table_for_people(self, root: Path) -> None:
        """Newest first, with what each epoch is."""
        outcome = statecast("catalogue", root)
        assert outcome.code == 0, outcome.stderr
        lines = [line for line in outcome.stdout.splitlines() if "complete" in line]
        assert ["incomplete" in line for line in lines] == [False, True, False]
        assert str(epoch_layout(3).epoch_id) in lines[0]

    def test_an_object_for_programs(self, root: Path) -> None:
        """With every shard."""
        document = statecast("catalogue", root, "--json").document
        assert [(epoch["epoch_height"], epoch["manifest"]["complete"]) for epoch in document["epochs"]] == [
            (1, True),
            (2, False),
            (3, True),
        ]
        assert document["epochs"][0]["manifest"]["shards"][0]["num_parts"] == NUM_PARTS

    def test_a_damaged_one_is_replaced_and_that_is_said(self, root: Path) -> None:
        """It can be rebuilt."""
        name = root / catalogue_name(CHAIN_ID)
        before = name.read_bytes()
        name.write_bytes(b"rotten")
        outcome = statecast("catalogue", root)
        assert outcome.code == 0 and "could not be read and was rebuilt" in outcome.stderr
        assert name.read_bytes() == before

    def test_a_rebuild_lists_damaged_manifests(self, root: Path) -> None:
        """As damaged."""
        (root / epoch_layout(1).manifest).write_bytes(b"rotten")
        outcome = statecast("catalogue", root, "--rebuild")
        assert outcome.code == 0 and "damaged" in outcome.stdout

    def test_a_web_servers_is_shown(self, root: Path, tmp_path: Path) -> None:
        """Its chain must be named, since a web server can't be listed; it can't be rebuilt there."""
        with fault_server(root, tmp_path / "log", everything=True) as server:
            outcome = statecast("catalogue", server.url, "--chain-id", CHAIN_ID, "--json")
            assert outcome.code == 0 and len(outcome.document["epochs"]) == 3
            assert statecast("catalogue", server.url).code == 2
            assert statecast("catalogue", server.url, "--chain-id", CHAIN_ID, "--rebuild").code == 2

    def test_a_store_without_a_chain_is_named(self, tmp_path: Path) -> None:
        """Not published there."""
        assert statecast("catalogue", tmp_path).code == 11


class TestGc:
    """``statecast gc``."""

    def test_a_plan_says_what_would_go(self, root: Path) -> None:
        """And deletes nothing."""
        before = objects_in(root)
        outcome = statecast("gc", root, "--keep-epochs", 1, "--plan", "--json")
        assert [(epoch["epoch_height"], epoch["verdict"]) for epoch in outcome.document["epochs"]] == [
            (1, "collect"),
            (2, "collect"),
            (3, "keep"),
        ]
        assert objects_in(root) == before
        assert "would be deleted" in statecast("gc", root, "--keep-epochs", 1, "--plan").stdout

    def test_old_epochs_go(self, root: Path) -> None:
        """One line an epoch says why."""
        outcome = statecast("gc", f"{root}/chain_id={CHAIN_ID}", "--keep-epochs", 1)
        assert outcome.code == 0, outcome.stderr
        assert "2 of 3 epochs deleted" in outcome.stdout
        assert {name.split("/")[1] for name in objects_in(root)} == {"catalogue.json", "latest.json", "epoch_height=3"}

    def test_a_held_epoch_is_named(self, root: Path) -> None:
        """With its holder."""
        EpochLease(open_store(str(root)), epoch_layout(1), "fetch").renew()
        outcome = statecast("gc", root, "--keep-epochs", 1)
        assert "held by a fetch of process" in outcome.stdout
        assert (root / epoch_layout(1).manifest).exists()

    @pytest.mark.parametrize("options", [(), ("--keep-epochs", 0), ("--keep-epochs", 1, "--orphans-after", "soon")])
    def test_wrong_options_delete_nothing(self, root: Path, options: tuple[object, ...]) -> None:
        """They are told."""
        before = objects_in(root)
        assert statecast("gc", root, *options).code == 2
        assert objects_in(root) == before

    def test_a_killed_process_is_finished_by_the_next(self, tmp_path: Path) -> None:
        """SIGKILL in the midst of a deletion: what is left has no manifest, or is whole; the rerun leaves the newest epoch alone."""
        root = tmp_path / "store"
        for epoch_height in range(1, 9):
            publish_epoch(str(root), epoch_height)
        process = start_process("gc", root, "--keep-epochs", 1)
        assert kill_when(process, lambda: not (root / epoch_layout(3).manifest).exists()), "it ended before it could be killed"
        published = [epoch_layout(epoch_height) for epoch_height in range(1, 9) if (root / epoch_layout(epoch_height).manifest).exists()]
        assert len({sum(name.startswith(layout.folder) for name in objects_in(root)) for layout in published}) == 1, "all are whole"
        assert statecast("gc", root, "--keep-epochs", 1).code == 0
        assert {name.split("/")[1] for name in objects_in(root)} == {"catalogue.json", "latest.json", "epoch_height=8"}
        document = statecast("catalogue", root, "--json").document
        assert [epoch["epoch_height"] for epoch in document["epochs"]] == [8]

    def test_an_epochs_url_is_refused(self, root: Path) -> None:
        """A collection is of a chain."""
        assert statecast("gc", f"{root}/{epoch_layout(1).folder}", "--keep-epochs", 1).code == 2


class TestScrub:
    """``statecast scrub``."""

    def test_all_is_well(self, root: Path) -> None:
        """0, and what was read is said, also which sample."""
        outcome = scrub(root, "--sample", "40%", "--trust-key", public_key())
        assert outcome.code == 0, outcome.stderr
        assert "40% of the parts, from 0% on in the order of seed 0" in outcome.stdout
        again = scrub(root, "--sample", "40%", "--json").document
        assert [(epoch["sample"]["start_ppm"], epoch["parts_read"]) for epoch in again["epochs"]] == [(400_000, 2)] * 3

    def test_what_is_wrong_and_not_repaired(self, root: Path) -> None:
        """20, with every object named."""
        (root / part(1, 0)).unlink()
        (root / part(3, 1)).write_bytes(b"rotten")
        outcome = scrub(root)
        assert outcome.code == 20
        assert part(1, 0) in outcome.stdout and part(3, 1) in outcome.stdout
        document = scrub(root, "--json").document
        assert document["good"] is False and document["error"]["exit_code"] == 20
        found = [finding["object"] for epoch in document["epochs"] for finding in epoch["findings"]]
        assert sorted(found) == sorted([part(1, 0), part(3, 1)])

    def test_all_is_repaired(self, root: Path) -> None:
        """0, and the folder is as it was; a fetched folder or a seeder's will do."""
        before = objects_in(root)
        (root / part(1, 0)).unlink()
        outcome = scrub(root, "--full", "--repair-from-folder", published())
        assert outcome.code == 0, outcome.stderr
        assert "repaired from" in outcome.stdout
        assert objects_in(root) == before

    def test_some_is_repaired(self, root: Path, tmp_path: Path) -> None:
        """3, since a rerun with another mirror may do the rest."""
        mirror = Path(shutil.copytree(published(), tmp_path / "mirror"))
        (mirror / part(1, 0)).write_bytes(b"rotten")
        for idx in (0, 1):
            (root / part(1, idx)).unlink()
        outcome = scrub(root, "--repair-from", mirror, "--json")
        assert outcome.code == 3
        findings = [finding for epoch in outcome.document["epochs"] for finding in epoch["findings"]]
        assert [finding["repaired_from"] is not None for finding in findings] == [False, True]
        assert "refused" in findings[0]["not_repaired"]

    def test_a_seeders_data_folder_is_a_mirror(self, root: Path, tmp_path: Path) -> None:
        """With what the seeder remembers beside the epochs, and without the epochs that it does not have."""
        before, data = objects_in(root), tmp_path / "seed"
        shutil.copytree(published() / epoch_layout(3).folder / "shard_id=0", data / epoch_layout(3).folder / "shard_id=0")
        (data / ".seed").mkdir()
        (root / part(3, 4)).unlink()
        assert scrub(root, "--epoch", "latest", "--repair-from-folder", data).code == 0
        assert objects_in(root).items() >= before.items()

    def test_the_wrong_key(self, root: Path) -> None:
        """21: nothing was compared."""
        assert scrub(root, "--trust-key", public_key("second")).code == 21

    @pytest.mark.parametrize(
        "options",
        [
            ("--full", "--sample", "5%"),
            ("--sample", "0%"),
            ("--trust-threshold", 2),
            ("--repair-from-folder", "/nowhere"),
            ("--seed", 2**32),
        ],
    )
    def test_wrong_options(self, root: Path, options: tuple[object, ...]) -> None:
        """They are told."""
        assert scrub(root, *options).code == 2

    def test_one_epoch_by_its_url(self, root: Path) -> None:
        """Or by its height; one that is not there is named."""
        for arguments in ((f"{root}/{epoch_layout(2).folder}",), (root, "--epoch", 2)):
            document = json.loads(scrub(*arguments, "--json").stdout)
            assert [epoch["epoch_height"] for epoch in document["epochs"]] == [2]
        assert scrub(root, "--epoch", 9).code == 11


def test_a_ladder_is_kept_looked_at_checked_and_fetched(tmp_path: Path) -> None:
    """Of a real node's epochs 4, 5 and 6: the parts of 5 go, and come back as they were."""
    bucket = shutil.copytree(published_ladder(), tmp_path / "bucket")
    call = ("gc", bucket, "--keep-epochs", 3, "--full-every", 2, "--json")
    planned = json.loads(statecast(*call, "--plan").stdout)
    assert [epoch["verdict"] for epoch in planned["epochs"]] == ["keep", "thin", "keep"]
    done = json.loads(statecast(*call).stdout)
    assert [(epoch["verdict"], epoch["rebuilt_from"]) for epoch in done["epochs"]] == [("keep", []), ("thin", [4]), ("keep", [])]
    assert done["deleted_bytes"] == planned["deleted_bytes"] > 0
    (five,) = bucket.glob("chain_id=*/epoch_height=5/epoch_id=*")
    assert not list(five.rglob("state_part_*"))
    assert "had from 4 by one delta" in statecast("catalogue", bucket).stdout
    checked = statecast("check", five, "--trust-key", public_key(), "--in-process")
    assert checked.code == 0, checked.stderr
    diffs = [statecast("diff", place, "--from", 4, "--to", 5, "--in-process", "--json") for place in (bucket, published_ladder())]
    assert diffs[0].code == 0, diffs[0].stderr
    kept, whole = (diff.document | {"seconds": 0} for diff in diffs)
    assert kept == whole
    fetch = ("fetch", five, "--into", tmp_path / "into", "--trust-key", public_key(), "--verify-workers", 1, "--no-lease")
    without = statecast(*fetch)
    assert without.code == 31 and "give --base" in without.stderr
    proof = statecast("prove", five, "--account", "near", "--out", tmp_path / "proof.json")
    assert (
        proof.code == 11
        and "epoch 5 is kept there as deltas alone" in proof.stderr
        and "It is rebuilt of epoch 4: statecast fetch" in proof.stderr
    )
    get = ("get", "--account", "near", "--epochs", "4..6", "--to", tmp_path / "near.csv", "--json")
    several = statecast(*get, bucket)
    assert several.code == 11 and "epochs 5 are kept there as deltas alone" in several.document["error"]["problem"]
    assert statecast(*get, bucket, "--skip-missing").document["missing_epochs"] == [5]
    fetched = statecast(*fetch, "--base", bucket)
    assert fetched.code == 0, fetched.stderr
    assert statecast(*get, tmp_path / "into", "--skip-missing").document["rows"] == 1
    published = next(published_ladder().glob("chain_id=*/epoch_height=5/epoch_id=*"))
    for path in published.rglob("state_part_*"):
        assert (tmp_path / "into" / path.relative_to(published_ladder())).read_bytes() == path.read_bytes()
