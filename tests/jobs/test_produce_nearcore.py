"""``statecast produce`` over everything that nearcore's own code wrote: names, parts, headers and state roots are the same."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from schemas.ids import PartId
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding, decode_state_part
from schemas.published.object_layout import EpochLayout
from tests.support.commands import epoch_folder, statecast, statecast_process
from tests.support.native_wheel import KERNELS, needs_headers
from tests.support.nodes import (
    LOCALNET_EPOCH_HEIGHT,
    LOCALNET_EPOCH_ID,
    NODES,
    context_file,
    localnet,
    localnet_home,
    node_a,
    node_b,
    node_facts,
    tree,
)
from tests.support.published import produce, produce_localnet, published_localnet, session_folder, signing_key
from tests.support.vectors import ALL_VECTORS, COMMITTED_VECTORS, read_vectors

MAINNET_GENESIS_ROOT = "8EhZRfDTYujfZoUZtZ3eSMB9gJyFo5zjscR12dEcaxGU"
"""The prev_state_root of mainnet's first block, as the chain has published it."""


def dumped_epoch(height: int = LOCALNET_EPOCH_HEIGHT) -> Path:
    """Return the folder of an epoch as neard's own dumper wrote it."""
    (folder,) = (localnet() / "dump").glob(f"chain_id=*/epoch_height={height}/epoch_id=*")
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes by its name below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_headers
def test_the_localnet_comes_out_as_neard_dumped_it() -> None:
    """With nothing but the node's home: the epoch's folder, the names and bytes of parts and headers are neard's."""
    dumped = dumped_epoch()
    published = epoch_folder(published_localnet())
    assert published.relative_to(published_localnet()) == dumped.relative_to(localnet() / "dump")
    theirs, ours = files_below(dumped), files_below(published)
    assert len(theirs) == 8
    assert {name: ours.get(name) for name in theirs} == theirs
    extra = {name.split("/")[0] for name in ours.keys() - theirs.keys()}
    assert extra == {"manifest.json", "manifests", "statements", "torrents"}


@needs_headers
def test_the_localnet_through_the_real_command(tmp_path: Path) -> None:
    """A process of its own, with the summary as JSON, gives the same objects and changes nothing at the node."""
    before = tree(localnet_home())
    outcome = statecast_process(
        *("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--signing-key", signing_key()),
        *("--work", tmp_path / "work", "--in-process", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert tree(localnet_home()) == before
    document = outcome.document
    assert [shard["root_verified"] for shard in document["shards"]] == [True] * 4
    assert [shard["state_header"] for shard in document["shards"]] == [True] * 4
    assert document["context"]["epoch_id"] == LOCALNET_EPOCH_ID
    assert Path(document["report"]).read_text().count("<svg") >= 3
    theirs = files_below(dumped_epoch())
    ours = files_below(epoch_folder(tmp_path / "out"))
    assert {name: ours.get(name) for name in theirs} == theirs


@pytest.mark.parametrize("selector", [("--epoch", str(LOCALNET_EPOCH_HEIGHT)), ("--epoch-id", LOCALNET_EPOCH_ID), ("--epoch", "latest")])
def test_an_epoch_can_be_named_in_three_ways(tmp_path: Path, selector: tuple[str, str]) -> None:
    """Its height, its id and the word for the newest one give the same plan."""
    outcome = produce_localnet(tmp_path, *selector, "--plan", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["context"]["epoch_id"] == LOCALNET_EPOCH_ID


@lru_cache
def dataset_of(home: Path, context_name: str) -> Path:
    """Export a node's shards once for all numbers of parts."""
    folder = session_folder() / f"dataset-{home.name}-{context_name}"
    outcome = statecast("export", "--node-home", home, "--context", home / context_name, "--to", f"dataset://{folder}", "--in-process")
    assert outcome.code == 0, outcome.stderr
    return folder


def golden(file: Path) -> list[dict[str, Any]]:
    """Return nearcore's parts of a node: one entry a shard and number of parts."""
    cases = json.loads(file.read_text())
    assert isinstance(cases, list)
    return cases


def check_against_golden(home: Path, golden_file: Path, encoding: Encoding, to: Path) -> int:
    """Produce every case and compare every part; return how many parts were compared."""
    dataset = dataset_of(home, "context.json")
    context = context_file(home)
    compared = 0
    for case in golden(golden_file):
        num_parts, shard_uid = case["num_parts"], case["shard_uid"]
        shard = next(shard for shard in context.shards if str(shard.shard_uid) == shard_uid)
        folder = to / f"{shard_uid}-{num_parts}"
        outcome = produce(
            *(folder, "--from", f"dataset://{dataset}", "--shard-id", shard.shard_id, "--num-parts", num_parts),
            *("--encoding", encoding, "--json"),
        )
        assert outcome.code == 0, outcome.stderr
        (summary,) = outcome.document["shards"]
        assert (summary["state_root"], summary["root_verified"], summary["num_parts"]) == (case["state_root"], True, num_parts)
        compared += compare_parts(context, shard.shard_id, case, encoding, folder)
    return compared


def compare_parts(context: EpochContext, shard_id: int, case: dict[str, Any], encoding: Encoding, folder: Path) -> int:
    """Compare one case's parts with nearcore's."""
    layout = EpochLayout.of(context)
    found = sorted(path.name for path in (folder / layout.shard_folder(shard_id)).iterdir())
    assert len(found) == len(case["parts"])
    for part in case["parts"]:
        data = (folder / layout.state_part(shard_id, PartId(part["part_id"], case["num_parts"]))).read_bytes()
        decoded = decode_state_part(data, encoding)
        assert (decoded.size, hashlib.sha256(decoded).hexdigest()) == (part["size"], part["sha256"])
    return len(case["parts"])


@pytest.mark.parametrize("encoding", [Encoding.V0, Encoding.V1])
def test_node_a_gives_nearcores_parts_for_every_number_of_parts(tmp_path: Path, encoding: Encoding) -> None:
    """V0 objects, and V1 objects decoded, have nearcore's sha256, those of the shard born by resharding too."""
    golden_file = NODES / "node-a.golden.json"
    assert {"s0.v3", "s5.v3", "s90.v4"} == {case["shard_uid"] for case in golden(golden_file)}
    assert check_against_golden(node_a(), golden_file, encoding, tmp_path) == sum(len(case["parts"]) for case in golden(golden_file))


@pytest.mark.parametrize("encoding", [Encoding.V0, Encoding.V1])
def test_node_b_gives_nearcores_parts_for_every_number_of_parts(tmp_path: Path, encoding: Encoding) -> None:
    """The larger node as well."""
    golden_file = NODES / "node-b.golden.json"
    assert check_against_golden(node_b(), golden_file, encoding, tmp_path) == sum(len(case["parts"]) for case in golden(golden_file))


def test_the_reference_kernel_gives_nearcores_parts(tmp_path: Path) -> None:
    """The whole job on pure Python, for one number of parts."""
    case = next(case for case in golden(NODES / "node-a.golden.json") if case["num_parts"] == 5 and case["shard_uid"] == "s0.v3")
    context = context_file(node_a())
    outcome = produce(
        *(tmp_path, "--from", f"dataset://{dataset_of(node_a(), 'context.json')}", "--shard-id", 0, "--num-parts", 5),
        *("--encoding", "v0", "--kernel", "reference", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["kernel"] == "reference"
    assert compare_parts(context, 0, case, Encoding.V0, tmp_path) == 5


def next_roots(home: Path) -> dict[str, str]:
    """Return each shard's state root one block after the flat head."""
    return {uid: facts["next_state_root"] for uid, facts in node_facts(home).items() if "next_state_root" in facts}


def check_next_block(home: Path, to: Path) -> None:
    """Produce the block after the flat head and compare the roots."""
    outcome = produce(to, "--node-home", home, "--context", home / "context-next.json", "--num-parts", 3, "--json")
    assert outcome.code == 0, outcome.stderr
    assert {shard["shard_uid"]: shard["state_root"] for shard in outcome.document["shards"]} == next_roots(home)
    assert statecast("check", to, "--in-process").code == 0


def test_the_delta_brings_node_a_one_block_further(tmp_path: Path) -> None:
    """The flat state rolled forward hashes to the next block's roots."""
    check_next_block(node_a(), tmp_path)


def test_the_delta_brings_node_b_one_block_further(tmp_path: Path) -> None:
    """The larger node as well."""
    check_next_block(node_b(), tmp_path)


def write_records(case: dict[str, Any], file: Path) -> str:
    """Write a vector's records as JSON Lines, in no order; return the source's URL."""
    file.write_text("".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in case["records"]))
    return f"records://{file}"


def check_vector(case: dict[str, Any], kernel: str, folder: Path) -> None:
    """Produce a vector's part sets and compare them with nearcore's."""
    source = write_records(case, folder / "records.jsonl")
    dataset = folder / "dataset"
    exported = statecast("export", "--from", source, "--to", f"dataset://{dataset}", "--in-process", "--json", "--kernel", kernel)
    assert exported.code == 0, exported.stderr
    (shard,) = exported.document["shards"]
    assert (shard["state_root"], shard["memory_usage"]) == (case["state_root"], case["memory_usage"])
    for part_set in case["part_sets"]:
        to = folder / f"of-{part_set['num_parts']}"
        outcome = produce(
            to, "--from", f"dataset://{dataset}", "--num-parts", part_set["num_parts"], "--encoding", "v0", "--kernel", kernel, "--json"
        )
        assert outcome.code == 0, outcome.stderr
        assert outcome.document["shards"][0]["state_root"] == case["state_root"]
        parts = {path.name: path.read_bytes() for path in to.rglob("state_part_*")}
        assert len(parts) == part_set["num_parts"]
        for part in part_set["parts"]:
            data = parts[f"state_part_{part['part_id']:06d}_of_{part_set['num_parts']:06d}"]
            assert hashlib.sha256(data).hexdigest() == part["sha256"]


VECTORS = read_vectors(COMMITTED_VECTORS)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case{case['case']}") for case in VECTORS])
@pytest.mark.parametrize("kernel", KERNELS)
def test_vector_tries_come_out_as_nearcores(tmp_path: Path, case: dict[str, Any], kernel: str) -> None:
    """Root, memory usage and every part of the small tries, through records files and both kernels."""
    check_vector(case, kernel, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_all_other_vector_tries_come_out_as_nearcores(tmp_path: Path, kernel: str) -> None:
    """The other 34 of the 48 tries."""
    committed = {case["case"] for case in VECTORS}
    others = [case for case in read_vectors(ALL_VECTORS) if case["case"] not in committed]
    assert len(others) == 34
    for case in others:
        folder = tmp_path / str(case["case"])
        folder.mkdir()
        check_vector(case, kernel, folder)


def test_records_go_straight_to_parts(tmp_path: Path) -> None:
    """``--from records://`` without a context: chain local, and the root is computed and said to be unverified."""
    case = VECTORS[-1]
    part_set = next(part_set for part_set in case["part_sets"] if part_set["num_parts"] == 7)
    outcome = produce(tmp_path / "out", "--from", write_records(case, tmp_path / "r.jsonl"), "--num-parts", 7, "--encoding", "v0", "--json")
    assert outcome.code == 0, outcome.stderr
    (shard,) = outcome.document["shards"]
    assert (shard["state_root"], shard["root_verified"]) == (case["state_root"], False)
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").rglob("state_part_*"))
    assert digests == sorted(part["sha256"] for part in part_set["parts"])


def test_mainnets_genesis_has_its_published_state_root(tmp_path: Path, shared_fixtures: Path) -> None:
    """The whole genesis state of mainnet, through the genesis source."""
    genesis = tmp_path / "genesis.json"
    genesis.write_text(json.dumps(json.loads((shared_fixtures / "real" / "mainnet_genesis.json").read_text())["genesis"]))
    outcome = produce(tmp_path / "out", "--from", f"genesis://{genesis}", "--json")
    assert outcome.code == 0, outcome.stderr
    assert [shard["state_root"] for shard in outcome.document["shards"]] == [MAINNET_GENESIS_ROOT]
    assert outcome.document["context"]["chain_id"] == "mainnet"
    assert statecast("check", tmp_path / "out", "--in-process").code == 0
