"""What ``statecast produce --plan`` says: what a run would do and take, from what can be known without reading a shard."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.network_input import peer_json, peer_line
from jobs.publish_options import PublishOptions
from jobs.terminal import format_bytes, format_seconds, open_console, open_table, print_json
from pipelines.bucket.published_epoch import StoredManifest
from pipelines.dataset.tables.tables_place import look_at_place
from pipelines.producing.build.plan_parts import decide_num_parts
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.forecast_epoch import node_disk_bytes
from pipelines.producing.forecast.stage_costs import StageCosts
from pipelines.producing.preflight.look import RunSize, run_size
from pipelines.producing.preflight.run_needs import run_forecast
from pipelines.producing.publish.key_file import STANDARD_INPUT
from pipelines.producing.publish.kms_key import SCHEME as KMS_SCHEME
from pipelines.producing.publish.signing import Signer
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError, SignatureError, StoreError
from schemas.published.object_layout import EpochLayout

WITH_DATASET = "dataset"
DIRECT = "direct"
"""Names of the two ways in ``takes``."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """How the run would work."""

    kernel_name: str
    workers: int
    read_bytes_per_s: float | None
    """Most that would be read from a node's disk; None for no limit, or no node."""
    upload_bytes_per_s: float | None
    """Most bytes of parts that would be uploaded; None for no limit."""
    repair: bool
    write_dataset: bool
    """The records are exported first."""
    has_tables: bool = False
    """Decoded tables are made too."""


def print_plan(found: EpochInput, publish: PublishOptions, run: PlannedRun, as_json: bool) -> None:
    """Say what would be done and what it takes, or that there is nothing to do. Nothing is written.

    Raises:
        ManifestError, InvalidInputError: the epoch is published in another form.
    """
    shards: list[dict[str, Any]] = []
    peers = () if found.network is None else found.network.hosts.look()
    for shard in found.context.shards:
        memory_usage = found.source.root_memory_usage(shard) if found.source else None
        if found.network is not None:
            memory_usage = found.network.header(found.context, shard).proven.memory_usage
        for dataset in found.datasets:
            if dataset.summary.shard.shard_uid == shard.shard_uid:
                memory_usage = dataset.summary.memory_usage
        num_parts = publish.num_parts if memory_usage is None else decide_num_parts(memory_usage, publish.num_parts)
        shards.append(
            {
                "shard_id": shard.shard_id,
                "shard_uid": str(shard.shard_uid),
                "state_root": None if shard.state_root is None else str(shard.state_root),
                "memory_usage": memory_usage,
                "num_parts": num_parts,
            }
        )
    layout = EpochLayout.of(found.context)
    if publish.tables is not None:
        # A place that can't be asked is the run's own to complain of; one of another chain is no place for these.
        with suppress(StoreError):
            look_at_place(publish.tables, found.context.chain_id)
    published = None if run.repair else _published(found, publish)
    copy = found.sorted_size()
    document = {
        "message_type": "plan",
        "source": found.describe(),
        "to": f"{open_store(publish.to).url}/{layout.folder}",
        "encoding": str(publish.encoding_of(found.context)),
        "kernel": run.kernel_name,
        "context": found.context.to_json(),
        "shards": shards,
        "nothing_to_do": published is not None,
        "workers": run.workers,
        "takes": _takes(run_size(found, publish.encoding), run) if found.network is None else None,
        **({} if copy is None else {"sorted_copy_bytes": [copy.least, copy.most]}),
        "tables": None if publish.tables is None else open_store(publish.tables).url,
        **({"peers": [peer_json(peer) for peer in peers]} if peers else {}),
    }
    if as_json:
        print_json(document)
        return
    if published is not None:
        open_console().print(
            f"nothing to do: {document['to']} is published, manifest revision {published.manifest.revision}", soft_wrap=True
        )
        return
    _print(found, document)
    for peer in peers:
        open_console().print(peer_line(peer), highlight=False, soft_wrap=True)


def _published(found: EpochInput, publish: PublishOptions) -> StoredManifest | None:
    # A place that can't be asked is the run's own to complain of.
    with suppress(StoreError):
        return publish.publisher(found.context, _file_signer(publish)).whole_manifest(found.context, publish.num_parts)
    return None


def _file_signer(publish: PublishOptions) -> Signer | None:
    """Return the signer whose signature the run would add, where a look costs nothing and takes nothing from standard input."""
    key = publish.signing_key
    if key is not None and (key == STANDARD_INPUT or key.startswith(KMS_SCHEME)):
        return None
    with suppress(InvalidInputError, SignatureError):
        return publish.choose_signer()
    return None


def _takes(size: RunSize | None, run: PlannedRun) -> dict[str, Any] | None:
    """Return what the run takes, about; None where sizes are known after reading."""
    if size is None:
        return None
    needs = size.needs
    ways = {WITH_DATASET: _way(size, run, direct=False)}
    if not size.exported:
        ways[DIRECT] = _way(size, run, direct=True)
    way = WITH_DATASET if size.exported or run.write_dataset else DIRECT
    return {
        "peak_disk_bytes": ways[way]["work_bytes"],
        "worker_memory_bytes": needs.worker_memory_bytes,
        "seconds": ways[way]["seconds"],
        "bytes": needs.destination_bytes,
        "objects": needs.destination_objects,
        "tables_bytes": needs.tables_bytes if run.has_tables else 0,
        "way": way,
        "ways": ways,
    }


def _way(size: RunSize, run: PlannedRun, *, direct: bool) -> dict[str, Any]:
    """Return what one way takes: bytes read from the node's disk, bytes in the work folder at most, seconds until the source is not
    needed any more, and until all is out."""
    costs, needs = StageCosts(), size.needs
    shape = EpochShape(tuple(memory_usage for memory_usage in size.shape.memory_usages if memory_usage))
    read_s = last_s = 0.0
    if shape.memory_usages:
        forecast = run_forecast(shape, costs, run.workers, run.read_bytes_per_s, early=size.early, direct=direct)
        read_s, last_s = forecast.exported_s, forecast.last_part_s
    if run.upload_bytes_per_s is not None:
        last_s = max(last_s, needs.destination_bytes / run.upload_bytes_per_s)
        # Parts that are read from the source one by one keep it as long as they take to go out.
        read_s = last_s if direct else read_s
    return {
        "source_read_bytes": 0 if size.exported else node_disk_bytes(shape, costs, early=size.early, direct=direct),
        "work_bytes": needs.edges_bytes if direct else needs.dataset_bytes + (0 if size.early else needs.interiors_bytes),
        "source_needed_s": 0.0 if size.exported else round(read_s, 1),
        "seconds": round(last_s, 1),
    }


def _print(found: EpochInput, document: dict[str, Any]) -> None:
    table = open_table(
        ("shard", "parts", "memory usage", "state root"),
        left=("shard", "state root"),
        title=f"would publish epoch {found.context.epoch_height} of {found.context.chain_id} to {document['to']}",
    )
    for shard_plan in document["shards"]:
        memory = shard_plan["memory_usage"]
        table.add_row(
            shard_plan["shard_uid"],
            "after reading" if shard_plan["num_parts"] is None else f"{shard_plan['num_parts']:,}",
            "after reading" if memory is None else format_bytes(memory),
            shard_plan["state_root"] or "to be computed",
        )
    console = open_console()
    console.print(table)
    takes = document["takes"]
    if found.network is not None:
        return
    if takes is None:
        console.print("what it takes is known after reading: the source does not tell the shards' sizes")
        if "sorted_copy_bytes" in document:
            least, most = map(format_bytes, document["sorted_copy_bytes"])
            console.print(f"a sorted copy of it takes {least} to {most} meanwhile, of each process that reads it", highlight=False)
        return
    console.print(
        f"about {format_bytes(takes['bytes'])} in {takes['objects']:,} objects, {format_seconds(takes['seconds'])} with {document['workers']} "
        f"worker{'s' * (document['workers'] != 1)} of up to {format_bytes(takes['worker_memory_bytes'])}, {format_bytes(takes['peak_disk_bytes'])} in the work folder at most",
        highlight=False,
        soft_wrap=True,
    )
    if document["tables"] is not None:
        text = f"decoded tables: up to about {format_bytes(takes['tables_bytes'])} to {document['tables']}"
        console.print(text, highlight=False, soft_wrap=True, markup=False)
    if DIRECT not in takes["ways"]:
        return
    for way, name in ((WITH_DATASET, "with a dataset"), (DIRECT, "without (--dataset none)")):
        trade = takes["ways"][way]
        chosen = ", which the run does" if way == takes["way"] else ""
        console.print(
            f"{name}{chosen}: {format_bytes(trade['source_read_bytes'])} read from the source, {format_bytes(trade['work_bytes'])} written to the "
            f"work folder, the source (a node's snapshot) needed for {format_seconds(trade['source_needed_s'])} of {format_seconds(trade['seconds'])}",
            highlight=False,
            soft_wrap=True,
        )
