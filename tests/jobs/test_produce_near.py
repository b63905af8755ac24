"""``statecast produce --from near://…``: an epoch out of nearcore's own network, without a node of one's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest
import zstandard

from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.state_response import RESPONSE_V4
from schemas.nearcore.state_part import Encoding, decode_state_part, encode_state_part
from tests.support.commands import Outcome, epoch_folder, kill_tree, start_process, statecast, wait_until
from tests.support.fetches import layout_of, published_manifest
from tests.support.native_wheel import needs_headers
from tests.support.near_hosts import GENEROUS, PublishedState, host_behind_transit, near_host
from tests.support.nodes import localnet_home
from tests.support.published import session_folder, signing_key
from tests.support.rpc_server import RecordedChain, rpc_server

pytestmark = needs_headers

EPOCH = 5
"""Of which the recorded endpoint has all blocks."""

FORM = ("--num-parts", 5, "--encoding", "v1")
"""Parts of some number, so that there are several: a stock node's would be one a shard here."""


@lru_cache
def by_the_node() -> Path:
    """Return the epoch's shards 0 and 2 as a producer with a node publishes them. It must not be changed."""
    folder = session_folder() / "localnet-epoch-5"
    options = ("--node-home", localnet_home(), "--epoch", EPOCH, "--shard-id", 0, "--shard-id", 2, "--signing-key", signing_key())
    outcome = statecast("produce", *options, *FORM, "--to", folder, "--in-process", "--work", session_folder() / "work-epoch-5")
    assert outcome.code == 0, outcome.stderr
    return folder


def state(tmp_path: Path, change: Callable[[bytes], bytes] | None = None, version: int | None = None) -> PublishedState:
    """Return what a peer serves: the parts of `by_the_node`, as they lie there or changed."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return PublishedState(by_the_node(), published_manifest(by_the_node()), scratch, change, version)


@contextmanager
def endpoints(*chains: RecordedChain) -> Iterator[tuple[object, ...]]:
    """Run endpoints; give the options that name them."""
    with ExitStack() as running:
        urls = [running.enter_context(rpc_server(chain)).url for chain in chains]
        yield ("--rpc-rate", 1000, *(option for url in urls for option in ("--rpc", url)))


def arguments(to: Path, peers: list[str], *options: object) -> tuple[object, ...]:
    """Return a command that produces the epoch from peers, as fast as they answer."""
    fixed = ("--epoch", EPOCH, "--signing-key", signing_key(), "--near-rate", 1000, "--work", to.with_name(f"{to.name}-work"), "--json")
    named = (option for url in peers for option in ("--from", url))
    return ("produce", *named, "--to", to, *FORM, *fixed, "--shard-id", 0, "--shard-id", 2, *options)


def produce(to: Path, peers: list[str], *options: object) -> Outcome:
    """Produce the epoch from peers."""
    return statecast(*arguments(to, peers, *options))


def objects(folder: Path) -> dict[str, bytes]:
    """Return the objects of the published epoch, but for the manifest, which says when it was made and by whom."""
    root = epoch_folder(folder)
    files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    return {name: data for name, data in files.items() if "manifest" not in name and "claim" not in name}


def streamed(part: bytes) -> bytes:
    """Compress a part as nearcore does: by a stream, which does not say how long the content is."""
    stream = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    payload = stream.compress(bytes(decode_state_part(part, Encoding.V1))) + stream.flush()
    return b"\x01" + len(payload).to_bytes(4, "little") + payload


def of_wrong_record(part: bytes) -> bytes:
    """Change one byte of what a part decodes to."""
    changed = bytearray(decode_state_part(part, Encoding.V1))
    changed[len(changed) // 2] ^= 1
    return encode_state_part(changed, Encoding.V1, 1)


def test_an_epoch_out_of_the_network_is_the_one_that_a_node_gives(tmp_path: Path) -> None:
    """Compressed by another zstd, and by two peers of which one knows one shard: parts, headers, statements and torrents byte for byte."""
    served = state(tmp_path, streamed, RESPONSE_V4)
    to = tmp_path / "bucket"
    with endpoints(RecordedChain(), RecordedChain()) as rpc, near_host(served) as both, near_host(served, name="other", shards=(2,)) as one:
        planned = produce(to, [both, one], *rpc, "--plan")
        assert planned.code == 0, planned.stderr
        assert not to.exists(), "a plan writes nothing"
        outcome = produce(to, [both, one], *rpc)
        assert outcome.code == 0, outcome.stderr
        again = produce(to, [both, one], *rpc)
    assert [shard["num_parts"] for shard in planned.document["shards"]] == [5, 5]
    assert [peer["announced_shards"] for peer in planned.document["peers"]] == [[0, 2], [2]]
    assert objects(to) == objects(by_the_node())
    mine, theirs = published_manifest(to), published_manifest(by_the_node())
    assert (mine.shards, mine.block_headers, mine.shard_layout) == (theirs.shards, theirs.block_headers, theirs.shard_layout)
    document = outcome.document
    assert [(shard["parts_reused"], shard["root_verified"]) for shard in document["shards"]] == [(0, True)] * 2
    assert sum(peer["answers"] for peer in document["peers"]) == 12, "a header and five parts of each shard, each asked for once"
    assert again.document["nothing_to_do"] is True


def test_an_epoch_is_taken_from_a_peer_that_only_another_one_reaches(tmp_path: Path) -> None:
    """It dials back to the port that is listened on."""
    to = tmp_path / "bucket"
    listen = ("--near-listen", "127.0.0.1:0")
    with endpoints(RecordedChain(), RecordedChain()) as rpc, host_behind_transit(state(tmp_path)) as (host, transit):
        outcome = produce(to, [host, transit], *rpc, *listen)
        assert outcome.code == 0, outcome.stderr
    assert objects(to) == objects(by_the_node())
    assert {peer["url"]: peer["answers"] for peer in outcome.document["peers"]} == {host: 12, transit: 0}
    without = produce(tmp_path / "other", [], "--node-home", localnet_home(), *listen)
    assert (without.code, "needs --from near://" in without.error_line) == (2, True), without.stderr


def test_a_peer_that_sends_a_wrong_part_is_not_asked_again(tmp_path: Path) -> None:
    """Alone it gives nothing, and is named with its fault; what it gave right before is kept, and an honest one gives the rest."""
    to = tmp_path / "bucket"
    sent = iter(range(1_000_000))
    sometimes = state(tmp_path, lambda part: of_wrong_record(part) if next(sent) == 3 else part)
    with endpoints(RecordedChain(), RecordedChain()) as rpc, near_host(sometimes, name="liar") as liar:
        alone = produce(to, [liar], *rpc, "--in-process")
        assert (alone.code, alone.document["error"]["kind"]) == (31, "fetch")
        assert liar in alone.error_line and "part 3 of shard 0" in alone.error_line
        assert (len(list(to.rglob("state_part*"))), list(to.rglob("manifest*"))) == (3, [])
        with near_host(state(tmp_path)) as honest:
            outcome = produce(to, [liar, honest], *rpc)
    assert outcome.code == 0, outcome.stderr
    assert [shard["parts_reused"] for shard in outcome.document["shards"]] == [3, 0]
    assert objects(to) == objects(by_the_node())


def test_a_header_of_another_state_is_the_peer_s_fault(tmp_path: Path) -> None:
    """It proves no state root of the chain; nothing is published."""
    served = tmp_path / "changed"
    shutil.copytree(by_the_node(), served)
    header = served / layout_of(published_manifest(served)).state_header(0)
    data = bytearray(header.read_bytes())
    data[-9] ^= 1
    header.write_bytes(data)
    with endpoints(RecordedChain(), RecordedChain()) as rpc, near_host(PublishedState(served, published_manifest(served), tmp_path)) as url:
        outcome = produce(tmp_path / "bucket", [url], *rpc)
    assert outcome.code == 31
    assert "does not end in the node of state root" in outcome.error_line


def test_one_endpoint_s_word_is_not_enough(tmp_path: Path) -> None:
    """Unless a trusted block's hash leads to the same state roots; endpoints that contradict each other are told, before a peer is asked."""
    peer = "near://ed25519:8fdYhNJ9LeSHXySxCfFd5M5A6BDyUyqNvThvt7TtTgrP@127.0.0.1:1"
    sync_block, parent = published_manifest(by_the_node()).block_headers
    sync_hash = published_manifest(by_the_node()).sync_hash
    parent_hash = decode_block_header(sync_block, "sync block", sync_hash).prev_hash
    to = tmp_path / "bucket"
    with endpoints(RecordedChain()) as one:
        alone = produce(to, [peer], *one)
        assert (alone.code, alone.document["error"]["kind"]) == (2, "invalid_input")
        twice = produce(to, [peer], *one, *one)
        assert twice.code == 2, "one endpoint that is named twice is one"
        other = produce(to, [peer], *one, "--trusted-block", published_manifest(by_the_node()).epoch_id)
        assert (other.code, other.document["error"]["kind"]) == (20, "context_mismatch")
        with near_host(state(tmp_path)) as url:
            for block in (sync_hash, parent_hash):
                tied = produce(tmp_path / str(block)[:4], [url], *one, "--trusted-block", block, "--plan")
                assert tied.code == 0, tied.stderr
    with endpoints(RecordedChain(), RecordedChain(final_height=150)) as two:
        ignorant = produce(to, [peer], *two)
        assert (ignorant.code, ignorant.document["error"]["kind"]) == (10, "source"), ignorant.stderr
    assert parent and not to.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--node-home", "."), "--node-home"),
        (("--dataset", "data"), "--dataset"),
        (("--read-limit", "5MB"), "--read-limit"),
        (("--from", "dataset:///data"), "no other source beside them"),
        (("--from", "near://nobody"), "near://ed25519:KEY@host:port"),
        ((), "one source's word"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """Before anything is asked."""
    peer = "near://ed25519:8fdYhNJ9LeSHXySxCfFd5M5A6BDyUyqNvThvt7TtTgrP@127.0.0.1:1"
    outcome = produce(tmp_path / "bucket", [peer], *options)
    assert (outcome.code, said in outcome.error_line) == (2, True), outcome.stderr


def test_a_peer_that_is_not_there_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what became of asking it, after a few tries."""
    monkeypatch.setattr("pipelines.nearpeer.state_hosts._RETRY_FIRST_S", 0.01)
    peer = "near://ed25519:8fdYhNJ9LeSHXySxCfFd5M5A6BDyUyqNvThvt7TtTgrP@127.0.0.1:1"
    with endpoints(RecordedChain(), RecordedChain()) as rpc:
        outcome = produce(tmp_path / "bucket", [peer], *rpc)
    assert (outcome.code, outcome.document["error"]["kind"]) == (31, "fetch")
    assert f"{peer}: can't connect" in outcome.error_line


@pytest.mark.slow
def test_a_run_that_is_killed_at_twenty_random_moments_goes_on(tmp_path: Path) -> None:
    """Or whose peer is: what is put stays, nothing has a name that is not right, and the end is as if nothing had been."""
    random = Random(11)
    to = tmp_path / "bucket"
    slow = replace(GENEROUS, upload_bytes_per_s=40_000)
    published = objects(by_the_node())
    with endpoints(RecordedChain(), RecordedChain()) as rpc:
        kept = 0
        for number in range(20):
            with near_host(state(tmp_path), slow) as url:
                process = start_process(*arguments(to, [url], *rpc))
                # What is killed on even turns is the run, on odd ones its peer, by the end of this block.
                wait_until(lambda one=process: one.poll() is not None or any(to.rglob("*")), 300)  # type: ignore[misc]
                time.sleep(random.uniform(0, 2.5))
                if number % 2 == 0:
                    kill_tree(process.pid)
            if number % 2:
                time.sleep(random.uniform(0, 0.5))
                kill_tree(process.pid)
            process.communicate()
            parts = {file.name: file.read_bytes() for file in to.rglob("state_part_*") if "shard_id=0" in str(file)}
            assert all(published[f"shard_id=0/{name}"] == data for name, data in parts.items()), "what has its name is right"
            assert len(parts) >= kept, "what was right is kept"
            kept = len(parts)
        with near_host(state(tmp_path)) as url:
            outcome = produce(to, [url], *rpc)
    assert outcome.code == 0, outcome.stderr
    assert objects(to) == published
