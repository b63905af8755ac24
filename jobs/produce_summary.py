"""What ``statecast produce`` says in the end: a table for people, or one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.command_time import command_time
from jobs.network_input import peer_json, peer_line
from jobs.terminal import coloured, format_bytes, format_seconds, open_console, open_table, print_json, say
from pipelines.execution.stage_runner import StageRunner
from pipelines.nearpeer.state_hosts import HostReport
from pipelines.producing.produce_epoch import EpochResult


def print_nothing_to_do(reason: str | bool, message: str, as_json: bool, **facts: object) -> None:
    """Say in one line why a run does nothing.

    Args:
        reason: published, claimed or not_ready; True where --if-missing did not ask for it.
    """
    if as_json:
        print_json({"message_type": "summary", **facts, "nothing_to_do": reason, "message": message})
    else:
        say(f"nothing to do: {message}")


def result_json(result: EpochResult, runner: StageRunner, report_file: Path | None, peers: Sequence[HostReport] = ()) -> dict[str, Any]:
    """Return a production's result as JSON values.

    Args:
        peers: those that parts were taken from.
    """
    return {
        "message_type": "summary",
        "epoch_url": result.epoch_url,
        "manifest_revision": result.manifest_revision,
        "signed_by": result.signed_by,
        "source": result.source,
        "kernel": result.kernel_name,
        "executor": result.executor,
        "seconds": round(command_time.seconds(), 3),
        "snapshot_needed_until_s": round(result.exported_s, 3),
        "report": None if report_file is None else str(report_file),
        "context": result.context.to_json(),
        "shards": [
            {
                "shard_id": shard.listing.shard_id,
                "shard_uid": str(shard.listing.shard_uid),
                "state_root": str(shard.listing.state_root),
                "root_verified": shard.root_was_known,
                "memory_usage": shard.memory_usage,
                "records": shard.records,
                "record_bytes": shard.record_bytes,
                "num_parts": len(shard.parts),
                "parts_reused": sum(part.reused for part in shard.parts),
                "decoded_size": shard.decoded_size,
                "stored_size": shard.stored_size,
                "state_header": shard.has_header,
                "state_header_origin": shard.header_origin,
                "seconds": round(result.shard_seconds[shard.listing.shard_uid], 3),
            }
            for shard in result.shards
        ],
        "stages": [
            {"stage": timing.stage, "shard": timing.shard, "tasks": timing.tasks, "seconds": round(timing.seconds, 3)}
            for timing in runner.timings
        ],
        **({"peers": [peer_json(peer) for peer in peers]} if peers else {}),
    }


def print_summary(result: EpochResult, report_file: Path | None, peers: Sequence[HostReport] = ()) -> None:
    """Print a production's result as a table."""
    table = open_table(
        ("shard", "records", "bytes", "parts", "stored", "ratio", "time", "header", "root"),
        left=("shard", "header", "root"),
        title=f"epoch {result.context.epoch_height} of {result.context.chain_id}",
    )
    for shard in result.shards:
        reused = sum(part.reused for part in shard.parts)
        table.add_row(
            str(shard.listing.shard_uid),
            f"{shard.records:,}",
            format_bytes(shard.record_bytes),
            f"{len(shard.parts):,}" + (f" ({reused} kept)" if reused else ""),
            format_bytes(shard.stored_size),
            f"{shard.compression_ratio:.2f}",
            format_seconds(result.shard_seconds[shard.listing.shard_uid]),
            shard.header_origin or "none",
            coloured(("verified", "green")) if shard.root_was_known else coloured(("computed", "yellow"), f" {shard.listing.state_root}"),
        )
    console = open_console()
    console.print(table)
    signed = f"signed by {result.signed_by}" if result.signed_by else ("unsigned", "yellow")
    console.print(coloured(f"manifest revision {result.manifest_revision}, ", signed, f", in {format_seconds(command_time.seconds())}"))
    console.print(result.epoch_url, highlight=False, soft_wrap=True)
    console.print(
        "ratio: bytes of the parts as nearcore writes them without compression, over the bytes stored", highlight=False, soft_wrap=True
    )
    for peer in peers:
        console.print(peer_line(peer), highlight=False, soft_wrap=True)
    for missing in result.published.notes:
        console.print(coloured(("note", "yellow"), f" {missing}"), highlight=False, soft_wrap=True)
    if report_file is not None:
        console.print(f"report {report_file}", highlight=False, soft_wrap=True)
