"""``statecast assist``: a new node on this machine gets its state from a bucket, as from any peer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from pipelines.nearpeer.node_key_file import read_or_make_node_key
from pipelines.seeding.node_config import add_peers, backup_of
from schemas.ids import PartId
from schemas.nearcore.block import decode_block_header
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import kill_tree, start_process, statecast, statecast_process
from tests.support.fetches import parts_manifest, published_manifest, published_parts
from tests.support.json_process import WAIT_S, running_command
from tests.support.peer_recordings import named_hash
from tests.support.published import produce_localnet, public_key
from tests.support.stock_requester import NewNode, NextEpoch, Object, running_node

PORTS = ("--listen", "127.0.0.1:0,127.0.0.1:0")
QUICK = ("--node-interval", "0.1", "--poll-interval", "0.2")


def new_node(home: Path, of: Manifest | None = None) -> NewNode:
    """Return a node of the published chain that has nothing."""
    manifest = of or parts_manifest()
    parent = decode_block_header(manifest.block_headers[1], "parent")
    parts = {shard.shard_id: shard.num_parts for shard in manifest.shards if shard.num_parts}
    return NewNode(home, manifest.chain_id, manifest.sync_hash, parent.prev_hash, parts, parent.height + 50)


def published_object(wanted: Object, bucket: Path | None = None, of: Manifest | None = None) -> bytes:
    """Return a part, or a header as a response has it."""
    bucket, manifest = bucket or published_parts(), of or parts_manifest()
    shard, part = wanted
    if part is None:
        return (bucket / manifest.layout.state_header(shard)).read_bytes()[1:]
    listed = manifest.shard(shard)
    assert listed is not None
    return (bucket / manifest.layout.state_part(shard, PartId(part, listed.num_parts))).read_bytes()


def published_manifests(bucket: Path) -> list[Manifest]:
    """Return the manifests of all epochs of a bucket."""
    files = [(file.read_bytes(), str(file)) for file in bucket.rglob("manifest.json")]
    return [Manifest.from_payload(parse_envelope(data, name).payload, name) for data, name in files]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes in seconds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assistant(node: NewNode, data: Path, *options: object, bucket: Path | None = None) -> tuple[object, ...]:
    """Return the arguments that assist a node."""
    trust = () if "--insecure" in options else ("--trust-key", public_key())
    return ("assist", "--node-home", node.home, "--from", bucket or published_parts(), "--data", data, *PORTS, *QUICK, *trust, *options)


def test_a_new_node_gets_every_header_and_part_and_the_command_ends_at_its_head(tmp_path: Path) -> None:
    """From an empty folder: told in words step by step, each object asked once, its own bytes, by a dial back."""
    with running_node(new_node(tmp_path / "home")) as node:
        before = (node.home / "config.json").read_bytes()
        outcome = statecast(*assistant(node, tmp_path / "data", "--write-config", "--events", "-"))
        assert outcome.code == 0, outcome.stderr
        lines = [json.loads(line) for line in outcome.stdout.splitlines()]
        events = {line.get("event") for line in lines}
        assert events >= {"node_found", "epoch_announced", "node_config_changed", "node_config_restored"}
        stages = [line["stage"] for line in lines if line.get("event") == "node_progress"]
        assert stages[-1] == "at_head" and set(stages) & {"headers", "state"}, stages
        assert {wanted: published_object(wanted) for wanted in node.wanted} == node.got
        assert sorted(map(str, node.asked)) == sorted(map(str, node.wanted)) and node.busy == 0
        summary = lines[-1]
        assert (summary["message_type"], summary["stage"], summary["node_block_height"]) == ("summary", "at_head", node.head_height)
        assert all(shard["header"] and shard["parts"] == shard["parts_total"] for shard in summary["near_peer"]["served"])
        assert (node.home / "config.json").read_bytes() == before and not backup_of(node.home / "config.json").exists()


@pytest.mark.slow
def test_both_epochs_are_served_while_the_epoch_turns(tmp_path: Path) -> None:
    """A node in the midst of one gets the rest of it after the next was announced under the other key, and then the next."""
    bucket = tmp_path / "bucket"
    options = ("--num-parts", 2, "--encoding", "v1")
    assert produce_localnet(bucket, "--epoch", 5, *options).code == 0
    first = published_manifest(bucket)
    node = new_node(tmp_path / "home", first)
    node.may_end = threading.Event()
    with running_node(node), running_command(*assistant(node, tmp_path / "data", bucket=bucket)) as run:
        run.event("epoch_announced", epoch_height=first.epoch_height)
        wait_until(lambda: len(node.got) == len(node.wanted) - 1)
        assert produce_localnet(bucket, *options).code == 0
        (second,) = [one for one in published_manifests(bucket) if one.epoch_height != first.epoch_height]
        turned = new_node(tmp_path / "other", second)
        node.next_epoch = NextEpoch(second.sync_hash, turned.announced_hash, turned.num_parts, turned.head_height)
        run.event("epoch_announced", epoch_height=second.epoch_height)
        node.may_end.set()
        run.event("node_progress", stage="at_head")
        assert run.ended() == 0
    for manifest, got in ((first, node.got_before), (second, node.got)):
        assert got == {wanted: published_object(wanted, bucket, manifest) for wanted in node.wanted}
    assert first.epoch_height + 1 == second.epoch_height and node.busy == 0


def test_an_interrupted_run_takes_its_names_out_of_the_node_s_config_and_a_killed_one_s_are_taken_out_on_request(tmp_path: Path) -> None:
    """The node has not started: nothing is there but its files. Nobody else's entries are touched."""
    node = new_node(tmp_path / "home")
    node.port, node.rpc_port = 9, 9
    node.write_home(boot_nodes="ed25519:8LXkRxq2pZwYqo5FyAGtsN9bFtAQzmJ1xXUqYJq8XkHG@192.0.2.7:24567")
    before = (node.home / "config.json").read_bytes()
    arguments = assistant(node, tmp_path / "data", "--write-config", "--near-genesis", named_hash("genesis"))
    with running_command(*arguments) as run:
        run.event("node_config_changed")
        written = json.loads((node.home / "config.json").read_text())["network"]
        assert [name.rpartition("@")[2].split(":")[0] for name in written["boot_nodes"].split(",")] == [
            "192.0.2.7",
            "127.0.0.1",
            "127.0.0.1",
        ]
        assert written["experimental"]["tier3_public_addr"] == "127.0.0.1:9"
        run.event("node_progress", stage="waiting")
        assert run.stop() == 143
    assert (node.home / "config.json").read_bytes() == before
    # What a killed run leaves: the file as it was changed, and its backup.
    key = read_or_make_node_key(tmp_path / "data/.seed/node_key_0.json")
    assert add_peers(node.home / "config.json", [f"{key.peer_id}@127.0.0.1:1"], "127.0.0.1:9")
    restored = statecast("assist", "--node-home", node.home, "--data", tmp_path / "data", "--restore-config", "--json")
    assert (restored.code, restored.document["restored"]) == (0, True), restored.stderr
    assert (node.home / "config.json").read_bytes() == before and not backup_of(node.home / "config.json").exists()


def test_a_plan_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    """Node, epoch, size; warnings where the node will not ask."""
    node = new_node(tmp_path / "home")
    node.port = node.rpc_port = 9
    node.write_home()
    config = json.loads((node.home / "config.json").read_text())
    (node.home / "config.json").write_text(json.dumps({**config, "state_sync_enabled": False, "archive": True}))
    files = {path: path.read_bytes() for path in node.home.iterdir()}
    outcome = statecast(*assistant(node, tmp_path / "data", "--plan", "--write-config", "--json"))
    manifest = parts_manifest()
    assert outcome.code == 0, outcome.stderr
    document = outcome.document
    assert (document["epoch_height"], document["parts"]) == (manifest.epoch_height, sum(shard.num_parts for shard in manifest.shards))
    assert len(document["warnings"]) == 2 and document["node_block_height"] is None
    assert "part" in statecast(*assistant(node, tmp_path / "data", "--plan")).stdout
    assert not (tmp_path / "data").exists() and {path: path.read_bytes() for path in node.home.iterdir()} == files


@pytest.mark.parametrize(
    ("change", "options", "code", "said"),
    [
        (lambda config: config, ("--trust-key", "none"), 2, "key"),
        (lambda config: {}, (), 2, "network.addr"),
        (lambda config: {**config, "network": {"addr": ""}}, (), 2, "listens to no peers"),
        (lambda config: {**config, "network": {"addr": 7}}, (), 2, "network.addr"),
        (lambda config: {**config, "network": {"addr": "nowhere"}}, (), 2, "is no address"),
        (lambda config: {**config, "node_key_file": "absent.json"}, (), 10, "node key can't be read"),
        (lambda config: {**config, "node_key_file": "genesis.json"}, (), 10, "no node key"),
        (lambda config: {**config, "genesis_file": "node_key.json"}, (), 10, "names no chain"),
        (lambda config: {**config, "genesis_file": ["x"]}, (), 2, "no file name"),
        (lambda config: config, ("--listen", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"), 2, "takes 2 addresses"),
        (
            lambda config: {**config, "network": {**config["network"], "boot_nodes": ["x"]}},
            ("--write-config", "--near-genesis", "11111111111111111111111111111111"),
            2,
            "no text",
        ),
    ],
)
def test_a_home_that_is_not_as_expected_is_refused_and_left_alone(tmp_path: Path, change, options, code, said) -> None:  # type: ignore[no-untyped-def]
    """Before anything is written."""
    node = new_node(tmp_path / "home")
    node.port = node.rpc_port = 9
    node.write_home()
    file = node.home / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    before = file.read_bytes()
    outcome = statecast(*assistant(node, tmp_path / "data", *options))
    assert (outcome.code, said in outcome.stderr) == (code, True), outcome.stderr
    assert file.read_bytes() == before and not backup_of(file).exists()


def test_a_home_without_files_and_a_chain_that_is_not_published_are_said(tmp_path: Path) -> None:
    """As what they are."""
    outcome = statecast("assist", "--node-home", tmp_path, "--from", published_parts(), "--insecure")
    assert (outcome.code, "no config.json" in outcome.stderr) == (10, True)
    node = new_node(tmp_path / "home")
    node.chain_id, node.port, node.rpc_port = "elsewhere", 9, 9
    node.write_home()
    outcome = statecast(*assistant(node, tmp_path / "data", "--plan"))
    assert (outcome.code, "the chain elsewhere is not published there" in outcome.stderr) == (11, True), outcome.stderr


@pytest.mark.slow
def test_a_helper_that_is_killed_at_random_moments_is_found_again_by_its_node(tmp_path: Path) -> None:
    """The same folder, keys and ports: the node asks again for what was under way, and gets all."""
    random, ports = Random(3), free_ports(2)
    listen = (
        "--listen",
        ",".join(f"127.0.0.1:{port}" for port in ports),
        "--near-genesis",
        named_hash("genesis"),
    )
    with running_node(new_node(tmp_path / "home")) as node:
        arguments = (*assistant(node, tmp_path / "data"), *listen)
        for _ in range(20):
            process = start_process(*arguments)
            time.sleep(random.uniform(2, 7))
            kill_tree(process.pid)
            process.communicate()
            if not node.is_syncing:
                break
        outcome = statecast_process(*arguments)
        assert outcome.code == 0, outcome.stderr
        assert {wanted: published_object(wanted) for wanted in node.wanted} == node.got
        assert not node.is_syncing


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in opened]
