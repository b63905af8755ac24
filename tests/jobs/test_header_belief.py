"""State headers that were not verified by us: damaged in a dataset, or forged in the store. None of them is signed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from schemas.published.dsse import Envelope, parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.shard_statement import ShardStatement
from tests.support.commands import Outcome, statecast
from tests.support.dumped_headers import dumped_header
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet_home
from tests.support.published import produce, produce_localnet, session_folder
from tests.support.stored_bytes import flip_bit

pytestmark = needs_headers

SHARD_ID = 0
Change = Callable[[Path], None]


@lru_cache
def exported() -> Path:
    """Return a dataset of one shard, as export leaves it. It must not be changed."""
    folder = session_folder() / "dataset-of-one"
    outcome = statecast(
        *("export", "--node-home", localnet_home(), "--to", f"dataset://{folder}", "--shard-id", SHARD_ID, "--in-process"),
    )
    assert outcome.code == 0, outcome.stderr
    return folder


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a pattern."""
    (path,) = folder.glob(pattern)
    return path


def unmark(folder: Path) -> None:
    """Make the dataset what it was before summaries had the digest."""
    path = only(folder, "**/shard.json")
    summary = json.loads(path.read_bytes())
    assert summary.pop("verified_state_header_sha256") == hashlib.sha256(dumped_header(6, SHARD_ID).data).hexdigest()
    path.write_text(json.dumps(summary))


def dataset(to: Path, *changes: Change) -> Path:
    """Copy the dataset and change the copy."""
    shutil.copytree(exported(), to)
    for change in changes:
        change(to)
    return to


def produce_from(folder: Path, to: Path) -> Outcome:
    """Produce the shard out of a dataset."""
    return produce(to, "--from", f"dataset://{folder}", "--json")


def manifest_in(folder: Path) -> Manifest:
    """Read the manifest."""
    path = only(folder, "**/manifest.json")
    return Manifest.from_payload(parse_envelope(path.read_bytes(), "test").payload, "test")


def statement_in(folder: Path) -> tuple[Path, ShardStatement, Envelope]:
    """Read the shard's statement."""
    path = only(folder, "**/statements/shard_id=0.json")
    envelope = parse_envelope(path.read_bytes(), "test")
    return path, ShardStatement.from_payload(envelope.payload, "test"), envelope


def assert_published_without_header(folder: Path, reason: str) -> None:
    """Statement and manifest name none, and the manifest says why."""
    assert statement_in(folder)[1].header_sha256 is None
    manifest = manifest_in(folder)
    assert [shard.header for shard in manifest.shards] == [None]
    assert [reason in found.reason for found in manifest.missing if found.kind == "state_header"] == [True]


def test_a_verified_header_is_published_from_a_dataset(tmp_path: Path) -> None:
    """Export verified it, the summary says so, and it is still that one."""
    outcome = produce_from(exported(), tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert only(tmp_path / "out", "**/header").read_bytes() == dumped_header(6, SHARD_ID).data


def test_a_flipped_bit_in_a_datasets_header_is_found(tmp_path: Path) -> None:
    """The summary's digest tells it before anything is published."""
    folder = dataset(tmp_path / "state", lambda copy: flip_bit(only(copy, "**/state_header")))
    outcome = produce_from(folder, tmp_path / "out")
    assert "does not have the sha256 that the summary says" in outcome.stderr
    assert outcome.code != 0
    assert not list((tmp_path / "out").glob("**/*.json"))


@pytest.mark.parametrize("changes", [(unmark,), (unmark, lambda copy: flip_bit(only(copy, "**/state_header")))], ids=["whole", "flipped"])
def test_an_older_datasets_header_is_not_published_unverified(tmp_path: Path, changes: tuple[Change, ...]) -> None:
    """It still reads; without a node its header can't be verified."""
    outcome = produce_from(dataset(tmp_path / "state", *changes), tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert_published_without_header(tmp_path / "out", "the dataset's was not verified in full when it was written")


@pytest.mark.parametrize("is_flipped", [False, True])
def test_with_the_node_an_older_datasets_header_is_verified(tmp_path: Path, is_flipped: bool) -> None:
    """A production that takes up an earlier export: the header is published if the node's blocks bear it out."""
    work = tmp_path / "work"
    first = produce_localnet(tmp_path / "first", "--shard-id", SHARD_ID, "--dataset", f"{tmp_path}/state", work=work)
    assert first.code == 0, first.stderr
    unmark(tmp_path / "state")
    if is_flipped:
        flip_bit(only(tmp_path / "state", "**/state_header"))
    again = produce_localnet(tmp_path / "out", "--shard-id", SHARD_ID, "--dataset", f"{tmp_path}/state", work=work)
    assert again.code == 0, again.stderr
    assert (statement_in(tmp_path / "out")[1].header_sha256 is None) == is_flipped


def forged_store(to: Path) -> Path:
    """Return a store whose header has a flipped bit, with an unsigned statement that names it, and no manifest."""
    outcome = produce_localnet(to, "--shard-id", SHARD_ID, key="second")
    assert outcome.code == 0, outcome.stderr
    header = only(to, "**/header")
    flip_bit(header)
    path, statement, envelope = statement_in(to)
    forged = replace(statement, header_sha256=hashlib.sha256(header.read_bytes()).hexdigest())
    path.write_bytes(Envelope(forged.to_payload(), envelope.payload_type).to_bytes())
    shutil.rmtree(only(to, "**/manifests"))
    only(to, "**/manifest.json").unlink()
    return to


def test_a_flipped_bit_in_the_store_is_not_signed(tmp_path: Path) -> None:
    """An unsigned statement names its digest; the run has no header and nothing that verifies."""
    out = forged_store(tmp_path / "out")
    outcome = produce_from(dataset(tmp_path / "state", unmark), out)
    assert outcome.code == 0, outcome.stderr
    assert_published_without_header(out, "the one in place is not kept")


def test_a_producer_with_a_verified_header_puts_it_over_the_forged_one(tmp_path: Path) -> None:
    """And its statement agrees with that of every other honest producer."""
    out = forged_store(tmp_path / "out")
    outcome = produce_from(exported(), out)
    assert outcome.code == 0, outcome.stderr
    assert only(out, "**/header").read_bytes() == dumped_header(6, SHARD_ID).data
    assert statement_in(out)[1].header_sha256 == hashlib.sha256(dumped_header(6, SHARD_ID).data).hexdigest()
