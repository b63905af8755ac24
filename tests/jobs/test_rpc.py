"""--rpc: contexts from a node's JSON-RPC, alone and beside a node, a file and a dataset."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node
from tests.support.commands import Outcome, statecast
from tests.support.nodes import LOCALNET_EPOCH_ID, localnet_home, node_a
from tests.support.rpc_server import RecordedChain, rpc_server

EPOCH_5 = "B1MJukrtNDhujVkwT8kVEVpNckym36FWFZHE3QUu6Psm"


def export(to: Path, *options: object) -> Outcome:
    """Export in this process, without waiting between requests."""
    return statecast("export", "--to", f"dataset://{to}", "--in-process", "--rpc-rate", 1000, "--json", *options)


def refused(outcome: Outcome) -> tuple[int, str, str]:
    """Return exit code, kind and message of an error."""
    error = outcome.document["error"]
    return outcome.code, error["kind"], outcome.error_line


def test_a_node_and_its_endpoint_agree(tmp_path: Path) -> None:
    """An epoch that both know; its records hash to the root that both name."""
    with rpc_server() as server:
        outcome = export(tmp_path, "--node-home", localnet_home(), "--rpc", server.url, "--rpc", server.url, "--epoch", 5, "--shard-id", 0)
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["context"] == epoch_context_from_node(localnet_home(), "5").only((0,)).to_json()
    assert [shard["root_verified"] for shard in outcome.document["shards"]] == [True]


def test_an_endpoint_that_contradicts_the_node_is_an_integrity_error(tmp_path: Path) -> None:
    """Nothing is exported."""
    with rpc_server(RecordedChain(epochs={EPOCH_5: {"epoch_height": 9}})) as server:
        outcome = export(tmp_path, "--node-home", localnet_home(), "--rpc", server.url, "--epoch-id", EPOCH_5)
    code, kind, line = refused(outcome)
    assert (code, kind) == (20, "context_mismatch")
    for word in ("epoch_height", "is 5", "and 9", str(localnet_home()), server.url):
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_contradicts_an_endpoint_is_the_users_to_mend(tmp_path: Path) -> None:
    """Both are named."""
    with rpc_server() as server:
        outcome = export(tmp_path, "--node-home", node_a(), "--context", node_a() / "context.json", "--rpc", server.url)
    code, kind, line = refused(outcome)
    assert (code, kind) == (2, "invalid_input")
    for word in ("chain_id", "fixture-a", "test-chain-klplt", "context.json", server.url):
        assert word in line


def test_an_epoch_that_has_just_begun_is_not_ready(tmp_path: Path) -> None:
    """Its height and id are said."""
    with rpc_server() as server:
        outcome = export(tmp_path, "--node-home", node_a(), "--rpc", server.url, "--epoch", 6)
    code, kind, line = refused(outcome)
    assert (code, kind) == (11, "epoch_not_ready")
    assert f"the sync hash of epoch 6 ({LOCALNET_EPOCH_ID}) is not known yet" in line


def test_an_endpoint_that_can_not_be_reached_is_left_out_beside_one_that_can(tmp_path: Path) -> None:
    """It is named on the way, without its key."""

    def not_found(handler: BaseHTTPRequestHandler, _number: int) -> bool:
        handler.send_error(404)
        return True

    with rpc_server() as server, rpc_server(fault=not_found) as gone:
        options = ("--node-home", localnet_home(), "--rpc", f"{gone.url}/secretkey", "--rpc", server.url, "--epoch", 5, "--shard-id", 0)
        outcome = export(tmp_path, *options)
    assert outcome.code == 0, outcome.stderr
    assert f"{gone.url}/…" in outcome.stderr
    assert "secretkey" not in outcome.stderr


def test_a_records_file_gets_its_context_from_an_endpoint(tmp_path: Path) -> None:
    """Its records are not the shard's: the root that the endpoint names is not reached."""
    (tmp_path / "records.jsonl").write_text('{"key": "00", "value": "01"}\n')
    with rpc_server() as server:
        options = ("--from", f"records://{tmp_path / 'records.jsonl'}", "--rpc", server.url, "--epoch", 5, "--shard-id", 2)
        outcome = export(tmp_path / "out", *options)
    code, kind, line = refused(outcome)
    assert (code, kind) == (20, "state_root_mismatch"), line


def test_a_dataset_is_checked_against_an_endpoint(tmp_path: Path) -> None:
    """By the epoch in its own summary."""
    folder = tmp_path / "dataset"
    assert export(folder, "--node-home", localnet_home(), "--epoch", 5, "--shard-id", 0).code == 0
    options = ("--from", f"dataset://{folder}", "--to", tmp_path / "out", "--allow-unsigned", "--in-process", "--plan", "--json")
    with rpc_server() as server:
        assert statecast("produce", *options, "--rpc", server.url, "--rpc-rate", 1000).code == 0
    with rpc_server(RecordedChain(configs={EPOCH_5: {"protocol_version": 75}})) as server:
        code, kind, line = refused(statecast("produce", *options, "--rpc", server.url, "--rpc-rate", 1000))
    assert (code, kind) == (2, "invalid_input")
    assert "protocol_version is 74 in" in line


@pytest.mark.parametrize("url", ["secretkey", "ftp://host/secretkey"])
def test_what_is_no_endpoint_is_refused(tmp_path: Path, url: str) -> None:
    """And not repeated, since it may be a key."""
    outcome = export(tmp_path, "--node-home", localnet_home(), "--rpc", url)
    assert refused(outcome)[:2] == (2, "invalid_input")
    assert "secretkey" not in outcome.stderr


def test_a_backfill_checks_each_epoch(tmp_path: Path) -> None:
    """An epoch that an endpoint contradicts fails alone."""
    options = ("--node-home", localnet_home(), "--epochs", "4..5", "--to", tmp_path / "out", "--shard-id", 0, "--in-process")
    with rpc_server(RecordedChain(configs={EPOCH_5: {"protocol_version": 75}})) as server:
        outcome = statecast("backfill", *options, "--rpc", server.url, "--rpc-rate", 1000, "--plan", "--json")
    steps = json.loads(outcome.stdout)["steps"]
    assert [(step["epoch_height"], bool(step.get("problem"))) for step in steps] == [(4, False), (5, True)]
    assert "protocol_version is 74 in" in steps[1]["problem"]
