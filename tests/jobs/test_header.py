"""``statecast header``, and the headers that produce and backfill publish."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.support.commands import statecast
from tests.support.dumped_headers import CACHED_EPOCH_HEIGHT, EPOCH_HEIGHTS, SHARD_IDS, dumped_header
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet_home, tree
from tests.support.published import signing_key


@needs_headers
@pytest.mark.parametrize("epoch_height", EPOCH_HEIGHTS)
def test_the_file_is_neards(tmp_path: Path, epoch_height: int) -> None:
    """Copied or computed, it has the bytes that neard dumped; the node's home is left as it was."""
    before = tree(localnet_home())
    out = tmp_path / "header"
    outcome = statecast("header", "--node-home", localnet_home(), "--epoch", epoch_height, "--shard-id", 2, "--out", out, "--json")
    assert outcome.code == 0, outcome.stderr
    dumped = dumped_header(epoch_height, 2)
    assert out.read_bytes() == dumped.data
    is_cached = epoch_height == CACHED_EPOCH_HEIGHT
    document = outcome.document
    assert (document["origin"], document["in_node"]) == ("copied" if is_cached else "computed", is_cached)
    assert document["sha256"] == hashlib.sha256(dumped.data).hexdigest()
    assert document["state_root"] == str(dumped.context.shard(2).state_root)
    assert list(tmp_path.iterdir()) == [out]
    assert tree(localnet_home()) == before


@needs_headers
def test_a_cached_header_can_be_computed_too() -> None:
    """--compute compares the two; without --out the JSON holds the bytes."""
    outcome = statecast("header", "--node-home", localnet_home(), "--shard-id", 0, "--compute", "--json")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.document["origin"], outcome.document["in_node"]) == ("computed", True)
    assert base64.b64decode(outcome.document["base64"]) == dumped_header(CACHED_EPOCH_HEIGHT, 0).data


@needs_headers
def test_people_read_it_in_a_few_lines() -> None:
    """What it is, that it verified, and that nothing was written."""
    outcome = statecast("header", "--node-home", localnet_home(), "--shard-id", 0, "--compute")
    assert outcome.code == 0, outcome.stderr
    text = " ".join(outcome.stdout.split())
    assert "computed, verified" in text
    assert "equal to the one that the node has" in text
    assert "7 incoming receipts of 2 blocks" in text
    assert "not written" in text


@pytest.mark.parametrize(("options", "code"), [(("--shard-id", 9), 2), (("--shard-id", 0, "--epoch", "99"), 11), (("--epoch", "6"), 2)])
def test_a_header_that_can_not_be_is_an_error(options: tuple[object, ...], code: int) -> None:
    """Another shard, another epoch, no shard."""
    assert statecast("header", "--node-home", localnet_home(), *options, "--json").code == code


@needs_headers
def test_a_file_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """And nothing half-written is left."""
    outcome = statecast("header", "--node-home", localnet_home(), "--shard-id", 0, "--out", tmp_path / "missing" / "header")
    assert (outcome.code, list(tmp_path.iterdir())) == (2, [])
    outcome = statecast("header", "--node-home", localnet_home(), "--shard-id", 0, "--out", tmp_path)
    assert (outcome.code, list(tmp_path.iterdir())) == (2, [])


def test_without_the_wheel_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 2, one line, no file."""
    monkeypatch.setitem(sys.modules, "statecast_kernel", None)
    outcome = statecast("header", "--node-home", localnet_home(), "--shard-id", 0, "--out", tmp_path / "header")
    assert outcome.code == 2
    assert "statecast-kernel wheel" in outcome.error_line
    assert list(tmp_path.iterdir()) == []


def produce(to: Path, *options: object) -> list[object]:
    """Return the command line that publishes one shard."""
    return [
        *("produce", "--node-home", localnet_home(), "--to", to, "--signing-key", signing_key(), "--work", f"file://{to}-work"),
        *("--in-process", "--json", "--shard-id", 1, *options),
    ]


@needs_headers
@pytest.mark.parametrize(("epoch_height", "origin"), [(6, "copied"), (5, "computed")])
def test_produce_publishes_the_header_and_says_where_it_is_from(tmp_path: Path, epoch_height: int, origin: str) -> None:
    """Of an epoch whose header the node has no more, too."""
    outcome = statecast(*produce(tmp_path / "out", "--epoch", epoch_height))
    assert outcome.code == 0, outcome.stderr
    (shard,) = outcome.document["shards"]
    assert (shard["state_header"], shard["state_header_origin"]) == (True, origin)
    (header,) = (tmp_path / "out").glob("**/headers/shard_id=1/header")
    assert header.read_bytes() == dumped_header(epoch_height, 1).data


def test_without_the_wheel_an_epoch_has_no_header_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the epoch is published as ever."""
    monkeypatch.setitem(sys.modules, "statecast_kernel", None)
    outcome = statecast(*produce(tmp_path / "out", "--kernel", "reference"))
    assert outcome.code == 0, outcome.stderr
    (shard,) = outcome.document["shards"]
    assert (shard["state_header"], shard["state_header_origin"], shard["root_verified"]) == (False, None, True)
    assert list((tmp_path / "out").glob("**/header")) == []
    (manifest,) = (tmp_path / "out").glob("**/manifest.json")
    envelope = json.loads(manifest.read_bytes())
    missing = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["missing"]
    (reason,) = [found["reason"] for found in missing if found["kind"] == "state_header" and found["shard_id"] == 1]
    assert "native kernel" in reason


@needs_headers
def test_backfilled_epochs_have_their_headers(tmp_path: Path) -> None:
    """Walked, rolled forward or from flat state: every header is the one that neard dumped."""
    outcome = statecast(
        *("backfill", "--node-home", localnet_home(), "--epochs", "4..6", "--to", tmp_path / "out", "--signing-key", signing_key()),
        *("--work", f"file://{tmp_path}/work", "--in-process", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    for epoch_height in EPOCH_HEIGHTS:
        for shard_id in SHARD_IDS:
            (header,) = (tmp_path / "out").glob(f"*/epoch_height={epoch_height}/*/headers/shard_id={shard_id}/header")
            assert header.read_bytes() == dumped_header(epoch_height, shard_id).data
