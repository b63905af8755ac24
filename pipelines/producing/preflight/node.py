"""A node, as a look before a run finds it: which epoch and shards it can give, and whether it keeps state snapshots."""

from __future__ import annotations

from pipelines.near.node.node_home import NodeHome
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict, failure
from pipelines.producing.preflight.look import RunSize
from schemas.errors import StatecastError
from schemas.shown_size import shown_size


def snapshots_finding(home: NodeHome) -> PreflightFinding:
    """Say whether a node keeps a state snapshot of each epoch, by its config.json and by what is there."""
    there = any(home.snapshots.glob("*/data/CURRENT"))
    found = "there is a state snapshot" if there else "there is no state snapshot"
    where = str(home.home / "config.json")
    remedy = 'Set store.state_snapshot_config.state_snapshot_type to "Enabled" ("EveryEpoch" before nearcore 2.8), and restart the node.'
    if home.makes_snapshots is False:
        return PreflightFinding(
            "snapshots",
            PreflightVerdict.WARN if there else PreflightVerdict.FAIL,
            f"the node is told to make none, and {found}",
            remedy,
            where,
        )
    if home.makes_snapshots is None:
        verdict = PreflightVerdict.OK if there else PreflightVerdict.WARN
        return PreflightFinding(
            "snapshots", verdict, f"config.json leaves them to the release, and {found}", "" if there else remedy, where
        )
    wait = "" if there else "The node makes one at the next epoch's beginning."
    return PreflightFinding("snapshots", PreflightVerdict.OK, f"the node makes one each epoch, and {found}", wait, where)


def shards_findings(found: EpochInput) -> tuple[PreflightFinding, ...]:
    """Say which shards' records a node can't give at the epoch's block; none where it gives all."""
    findings: list[PreflightFinding] = []
    for shard in found.context.shards:
        try:
            if found.source is not None and found.source.on_node_disk:
                found.source.fingerprint(shard)
        except StatecastError as error:
            findings.append(failure(f"shard {shard.shard_uid}", error))
    return tuple(findings)


def epoch_finding(found: EpochInput, size: RunSize | None) -> PreflightFinding:
    """Say which epoch and shards would be made."""
    shards = ", ".join(str(shard.shard_uid) for shard in found.context.shards)
    told = "sizes are known after reading" if size is None else f"{shown_size(size.shape.memory_usage)} of memory usage"
    text = f"epoch {found.context.epoch_height} of {found.context.chain_id}, shards {shards}, {told}"
    if not found.left_out:
        return PreflightFinding("epoch", PreflightVerdict.OK, text, "", found.describe())
    left_out = ", ".join(map(str, found.left_out))
    remedy = "To publish all, let the node track them, or publish them from another node."
    return PreflightFinding("epoch", PreflightVerdict.WARN, f"{text}; not tracked: {left_out}", remedy, found.describe())
