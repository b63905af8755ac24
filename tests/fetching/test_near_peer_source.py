"""State parts out of nearcore's own network: judged by what they decode to, written as they were published."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pipelines.nearpeer.peer_url import PeerUrl
from schemas.errors import InvalidInputError
from schemas.nearcore.peer.state_response import RESPONSE_V3
from schemas.nearcore.state_part import Encoding, decode_state_part, encode_state_part
from tests.support.commands import Outcome, lasting_objects_in, statecast
from tests.support.fetches import parts_manifest, published_parts
from tests.support.native_wheel import needs_headers
from tests.support.near_hosts import PublishedState, host_behind_transit, near_host
from tests.support.published import public_key


def decoded(part: bytes) -> bytes:
    """Return the PartialState of a published part."""
    return bytes(decode_state_part(part, Encoding.V1))


def streamed(part: bytes) -> bytes:
    """Compress a part as nearcore does: by a stream, which does not say how long the content is."""
    stream = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    payload = stream.compress(decoded(part)) + stream.flush()
    return b"\x01" + len(payload).to_bytes(4, "little") + payload


def uncompressed(part: bytes) -> bytes:
    """Wrap a part without compressing it."""
    return encode_state_part(decoded(part), Encoding.V0_TAGGED)


def wrong(part: bytes) -> bytes:
    """Change one byte of what a part decodes to."""
    changed = bytearray(decoded(part))
    changed[len(changed) // 2] ^= 1
    return encode_state_part(changed, Encoding.V1, 1)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a bucket that has lost its parts."""
    bucket = tmp_path / "bucket"
    shutil.copytree(published_parts(), bucket, ignore=lambda _, names: [name for name in names if name.startswith("state_part")])
    return bucket


def fetch(bucket: Path, into: Path, *options: object) -> Outcome:
    """Fetch shard 0 by the publisher's key, without waiting for a stock node's limits."""
    fixed = (
        "--chain-id",
        parts_manifest().chain_id,
        "--into",
        into,
        "--trust-key",
        public_key(),
        "--requests-per-second-per-source",
        1000,
        "--no-lease",
        "--shard-id",
        0,
    )
    return statecast("fetch", bucket, *fixed, *options)


def state_parts(folder: Path) -> dict[str, bytes]:
    """Return the parts of shard 0 below a folder."""
    return {file.name: file.read_bytes() for file in folder.rglob("state_part*") if "shard_id=0" in str(file)}


@pytest.mark.parametrize(
    ("change", "version"),
    [(None, None), (streamed, None), (uncompressed, None), (decoded, RESPONSE_V3)],
    ids=["as published", "compressed by nearcore", "uncompressed", "of an old node"],
)
def test_parts_come_out_of_the_network_as_they_were_published(
    documents: Path, tmp_path: Path, change: Callable[[bytes], bytes] | None, version: int | None
) -> None:
    """Documents from a bucket that has no part, parts from a node, however it encodes: the published bytes."""
    (tmp_path / "scratch").mkdir()
    state = PublishedState(published_parts(), parts_manifest(), tmp_path / "scratch", change, version)
    with near_host(state) as url:
        outcome = fetch(documents, tmp_path / "into", "--source", url)
    assert outcome.code == 0, outcome.stderr
    got = state_parts(tmp_path / "into")
    assert got == state_parts(published_parts()) and got


def test_a_mirror_takes_parts_out_of_the_network(documents: Path, tmp_path: Path) -> None:
    """Documents of a bucket that has no part, parts of a node: the destination is what the bucket was."""
    (tmp_path / "scratch").mkdir()
    state, destination = PublishedState(published_parts(), parts_manifest(), tmp_path / "scratch"), tmp_path / "destination"
    with near_host(state) as url:
        outcome = statecast(
            *("mirror", documents, destination, "--chain-id", parts_manifest().chain_id, "--trust-key", public_key(), "--source", url),
            *("--requests-per-second-per-source", 1000, "--no-lease", "--no-rebuild", "--work", tmp_path / "work", "--json"),
        )
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["epochs"][0]["state"] == "copied"
    assert lasting_objects_in(destination) == lasting_objects_in(published_parts())


def test_a_node_that_sends_a_wrong_part_is_not_asked_again(documents: Path, tmp_path: Path) -> None:
    """It is named with its fault, nothing of it is kept, and an honest node beside it gives all."""
    (tmp_path / "scratch").mkdir()
    lying = PublishedState(published_parts(), parts_manifest(), tmp_path / "scratch", wrong)
    honest = PublishedState(published_parts(), parts_manifest(), tmp_path / "scratch")
    with near_host(lying, name="liar") as bad:
        outcome = fetch(documents, tmp_path / "alone", "--source", bad)
        assert outcome.code == 31
        assert "does not decode to the statement's size and sha256" in outcome.stderr
        assert state_parts(tmp_path / "alone") == {}
        with near_host(honest) as good:
            outcome = fetch(documents, tmp_path / "into", "--source", bad, "--source", good)
    assert outcome.code == 0, outcome.stderr
    assert state_parts(tmp_path / "into") == state_parts(published_parts())


@needs_headers
def test_a_host_that_can_t_be_dialled_gives_parts_and_a_header_through_another(documents: Path, tmp_path: Path) -> None:
    """It dials back to the port that is listened on; without one it gives nothing."""
    name = f"headers{os.sep}shard_id=0{os.sep}header"
    (header,) = [file for file in documents.rglob("header") if name in str(file)]
    published = header.read_bytes()
    header.unlink()
    with host_behind_transit(PublishedState(published_parts(), parts_manifest(), tmp_path)) as (host, transit):
        outcome = fetch(documents, tmp_path / "into", "--source", host, "--source", transit, "--near-listen", "127.0.0.1:0", "--json")
    assert outcome.code == 0, outcome.stderr
    assert state_parts(tmp_path / "into") == state_parts(published_parts())
    (got,) = [file for file in (tmp_path / "into").rglob("header") if name in str(file)]
    assert got.read_bytes() == published
    gave = {source["source_id"]: source["parts"] for source in outcome.document["sources"]}
    assert gave[host] == len(state_parts(published_parts())) and gave[transit] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--near-listen", "127.0.0.1:0"), "needs --source near://"),
        (("--near-address", "192.0.2.1:24567"), "needs --near-listen"),
        (("--near-listen", "nowhere", "--source", "near"), "is no address"),
        (("--near-listen", "127.0.0.1:0", "--near-address", "host.example:1", "--source", "near"), "no IP address"),
        (("--near-listen", "192.0.2.1:24567", "--source", "near"), "can't listen"),
    ],
)
def test_where_to_listen_is_refused_as_a_usage_error(documents: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """Where it is no address, or one that is not this machine's, or there is nobody to ask through."""
    peer = "near://ed25519:8fdYhNJ9LeSHXySxCfFd5M5A6BDyUyqNvThvt7TtTgrP@127.0.0.1:9"
    outcome = fetch(documents, tmp_path / "into", *(peer if option == "near" else option for option in options))
    assert (outcome.code, said in outcome.stderr) == (2, True), outcome.stderr


@pytest.mark.parametrize(
    "text", ["near://", "near://host:1", "near://ed25519:x@host:1", "near://secp256k1:x@h:1", "near://ed25519:@h", "near://@"]
)
def test_another_form_of_a_peer_s_name_is_refused_before_anything_is_asked(text: str) -> None:
    """With the form that is meant."""
    with pytest.raises(InvalidInputError):
        PeerUrl.parse(text)


@needs_headers
def test_a_header_comes_out_of_the_network_where_no_bucket_has_it(documents: Path, tmp_path: Path) -> None:
    """As it was published; of a node that has another one nothing is taken, and it is told."""
    name = f"headers{os.sep}shard_id=0{os.sep}header"
    (header,) = [file for file in documents.rglob("header") if name in str(file)]
    header.unlink()
    without = fetch(documents, tmp_path / "without")
    assert (without.code, "no source has the object" in without.stderr) == (31, True), without.stderr
    (tmp_path / "scratch").mkdir()
    changed = tmp_path / "changed"
    shutil.copytree(published_parts(), changed)
    (wrong_header,) = [file for file in changed.rglob("header") if name in str(file)]
    data = bytearray(wrong_header.read_bytes())
    data[100] ^= 1
    wrong_header.write_bytes(data)
    with near_host(PublishedState(changed, parts_manifest(), tmp_path / "scratch"), name="liar") as bad:
        outcome = fetch(documents, tmp_path / "alone", "--source", bad)
        assert (outcome.code, "its state header does not have the sha256" in outcome.stderr) == (31, True), outcome.stderr
        with near_host(PublishedState(published_parts(), parts_manifest(), tmp_path / "scratch")) as good:
            outcome = fetch(documents, tmp_path / "into", "--source", bad, "--source", good)
    assert outcome.code == 0, outcome.stderr
    (got,) = [file for file in (tmp_path / "into").rglob("header") if name in str(file)]
    (published,) = [file for file in published_parts().rglob("header") if name in str(file)]
    assert got.read_bytes() == published.read_bytes()
