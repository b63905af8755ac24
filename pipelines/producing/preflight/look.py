"""The looks together: what a run on this machine, from this source, to this destination would meet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipelines.dataset.tables.tables_place import look_at_place, read_tables_catalogue
from pipelines.execution.machine_limits import available_memory_bytes
from pipelines.near.node.flat_state_source import TrieSource
from pipelines.near.node.node_home import NodeHome
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.stage_costs import StageCosts
from pipelines.producing.preflight.destination import NOT_DELETED, probe_destination, probe_findings
from pipelines.producing.preflight.disk_space import FolderNeed, space_findings
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict
from pipelines.producing.preflight.machine import memory_finding, open_files_finding, table_count
from pipelines.producing.preflight.run_needs import WORKER_MEMORY_BYTES_MAX, RunNeeds
from pipelines.stores.open_store import open_store
from schemas.errors import StatecastError
from schemas.nearcore.state_part import Encoding, default_encoding
from schemas.published.object_layout import EpochLayout

TABLES: Final = "tables"
"""Name of what is found of the place of the tables."""

TABLES_LEAST_SHARE: Final = 0.3
"""So much of their forecast size tables take at least, as the real chain's of the tests do."""

DATASET_MARGIN: Final = 1.2
"""A dataset is written where so many times its forecast size is free: sizes are forecast from the root's memory usage alone."""


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run works, and on what terms."""

    to: str | None
    """The destination; None where none is named yet."""
    work_url: str
    dataset_url: str | None = None
    """None for the work folder."""
    write_dataset: bool = True
    """The records are exported first, where they are not yet."""
    workers: int | None = None
    """Processes that work at once on this machine; None where others do."""
    claims: bool = True
    """The run claims its epoch."""
    encoding: Encoding | None = None
    """Of the parts; None for what the epoch's protocol version writes."""
    epochs: int = 1
    """How many epochs it may make."""
    lanes: int = 1
    """How many of them at once."""
    rolls_forward: bool = False
    """Records are made out of those of the epoch before, which stay meanwhile, and of what changed."""
    tables: str | None = None
    """Where decoded tables go; None for none."""
    whole_epochs: int | None = None
    """Of how many of them all parts may be at the destination at a time; None for all of them. What deltas take is not known before they are made."""


@dataclass(frozen=True, slots=True)
class RunSize:
    """How large an epoch is, and in which order its parts go out."""

    shape: EpochShape
    early: bool
    """Parts go out before their shard is complete."""
    exported: bool
    """The dataset is there already."""
    compressed: bool
    """Parts are stored as zstd."""

    @property
    def needs(self) -> RunNeeds:
        """What it takes, by the measured costs."""
        return RunNeeds.of(self.shape, StageCosts(), exported=self.exported, compressed=self.compressed)


def run_size(found: EpochInput, encoding: Encoding | None = None) -> RunSize | None:
    """Return an epoch's size without reading a shard; None where the source can't tell.

    Reads the shards' root nodes.

    Args:
        encoding: of the parts; None for what the epoch's protocol version writes.
    """
    sizes = {dataset.summary.shard.shard_uid: dataset.summary.memory_usage for dataset in found.datasets}
    source = found.source
    if source is not None:
        try:
            sizes = {shard.shard_uid: source.root_memory_usage(shard) for shard in found.context.shards}
        except StatecastError:
            # Its error is the run's own to raise.
            return None
    known = [size for size in sizes.values() if size is not None]
    if len(known) < len(found.context.shards):
        return None
    # Parts go out early where their boundary nodes come by hash from a trusted root.
    early = source is not None and isinstance(source, TrieSource) and all(shard.state_root is not None for shard in found.context.shards)
    compressed = (encoding or default_encoding(found.context.protocol_version)) is Encoding.V1
    return RunSize(EpochShape(tuple(sorted(known, reverse=True))), early, source is None, compressed)


def look_before_run(place: RunPlace, found: EpochInput | None, home: NodeHome | None) -> tuple[PreflightFinding, ...]:
    """Take the cheap looks: folders, memory, open files, destination, and where tables go.

    Args:
        found: the epoch to make; None where that is not known yet.
        home: of the node that is read.
    Raises:
        DatasetError: tables can't go where they are to.
        StoreError: the destination, or the place of the tables, can't be written or read.
    """
    return (
        *look_at_room(place, found, home),
        *destination_findings(place.to, for_claim=place.claims),
        *tables_findings(place.tables, found),
    )


def look_at_room(place: RunPlace, found: EpochInput | None, home: NodeHome | None) -> tuple[PreflightFinding, ...]:
    """Take the looks at this machine alone: folders, memory, open files.

    Args:
        found: the epoch to make; None where that is not known yet.
        home: of the node that is read.
    """
    size = None if found is None else run_size(found, place.encoding)
    return (*folder_findings(place, found, size), *machine_findings(place.workers, size, home))


def look_before_export(url: str, workers: int | None, found: EpochInput, home: NodeHome | None) -> tuple[PreflightFinding, ...]:
    """Take the looks before an epoch is exported alone: its folder, memory, open files, and whether its store can be written.

    Args:
        url: of the store where the dataset goes.
        workers: processes that work at once on this machine; None where others do.
        home: of the node that is read.
    Raises:
        StoreError: the store can't be written or read.
    """
    size = run_size(found)
    dataset = 0 if size is None else size.needs.dataset_bytes
    folder = open_store(url).local_root()
    copies = _sorted_needs("--to", folder, found, workers)
    if folder is None:
        return (*space_findings(copies), *machine_findings(workers, size, home), *destination_findings(url, for_claim=False))
    # Of a folder it is enough to know that it may be written.
    need = FolderNeed("--to", folder, dataset, dataset, there=(folder / EpochLayout.of(found.context).folder,))
    return (*space_findings((need, *copies)), *machine_findings(workers, size, home))


def folder_findings(place: RunPlace, found: EpochInput | None, size: RunSize | None) -> tuple[PreflightFinding, ...]:
    """Judge the space of the folders of this machine that a run fills."""
    return space_findings(tuple(_folder_needs(place, found, size)))


def disk_holds_dataset(place: RunPlace, found: EpochInput, size: RunSize | None) -> bool:
    """Return whether the work folder's disk holds the dataset of a run that writes one there; True where that can't be told.

    What else the run puts on the same disk counts, and so does what an earlier run has left.

    Args:
        place: of the run; whether it writes a dataset is not looked at.
    """
    if size is None or size.exported or place.dataset_url is not None:
        return True
    needs = _folder_needs(replace(place, write_dataset=True), found, size)
    roomy = tuple(replace(need, bytes_least=int(need.bytes_least * DATASET_MARGIN)) for need in needs)
    return all(finding.verdict is not PreflightVerdict.FAIL for finding in space_findings(roomy))


def machine_findings(workers: int | None, size: RunSize | None, home: NodeHome | None) -> tuple[PreflightFinding, ...]:
    """Judge memory and open files of this machine.

    Args:
        workers: processes that work at once here; None where others do.
    """
    findings: list[PreflightFinding] = []
    if workers is not None:
        available = available_memory_bytes()
        worker = WORKER_MEMORY_BYTES_MAX if size is None else size.needs.worker_memory_bytes
        memory = memory_finding(available, worker, workers)
        # How much an epoch of unknown size takes is a guess, on which no run is refused.
        findings.append(memory if size is not None or memory.verdict is not PreflightVerdict.FAIL else memory.softened())
    if home is not None:
        findings.append(open_files_finding(table_count(node_databases(home))))
    return tuple(findings)


def destination_findings(url: str | None, *, for_claim: bool) -> tuple[PreflightFinding, ...]:
    """Try the destination, where there is one.

    Args:
        for_claim: an epoch is claimed there.
    Raises:
        StoreError: it can't be written or read.
    """
    if url is None:
        return ()
    store = open_store(url)
    probe = probe_destination(store)
    if probe is None:
        return (PreflightFinding("destination", PreflightVerdict.OK, "the folder is not there yet, and will be made", "", url),)
    return probe_findings(probe, for_claim=for_claim)


def tables_findings(url: str | None, found: EpochInput | None) -> tuple[PreflightFinding, ...]:
    """Try the place of the tables, where there is one: what is there, and whether it can be written.

    Args:
        found: the epoch to make; None where that is not known yet.
    Raises:
        DatasetError: tables of another chain or of another layout are there, or their catalogue is damaged.
        StoreError: it can't be written or read.
    """
    if url is None:
        return ()
    store = open_store(url)
    there = look_at_place(url, None if found is None else found.context.chain_id)
    has = "no tables yet" if there is None else f"tables of {len(there.epochs)} epochs of {there.chain_id}"
    probe = probe_destination(store)
    if probe is None:
        return (PreflightFinding(TABLES, PreflightVerdict.OK, "the folder is not there yet, and will be made", "", url),)
    if probe.exclusive and probe.conditional is not False:
        judged = PreflightFinding(TABLES, PreflightVerdict.OK, f"{has}; written, created exclusively and read back", "", probe.url)
    else:
        problem = "the store takes no notice of If-None-Match or If-Match, so of two that finish epochs at once one may be lost from the catalogue"
        judged = PreflightFinding(TABLES, PreflightVerdict.WARN, problem, "Make sure that one at a time writes there.", probe.url)
    return (judged, *(finding for finding in probe_findings(probe, for_claim=False) if finding.name == NOT_DELETED))


def node_databases(home: NodeHome) -> tuple[Path, ...]:
    """Return the folders of a node's databases and of its state snapshots."""
    return (*home.databases, *sorted(home.snapshots.glob("*/data")))


def _sorted_needs(option: str, folder: Path | None, found: EpochInput | None, workers: int | None) -> tuple[FolderNeed, ...]:
    """Return what the sorted copies of a source take that makes some: each process that reads it makes one of its own."""
    try:
        size = None if found is None else found.sorted_size()
    except StatecastError:
        # Its error is the run's own to raise.
        return ()
    if size is None:
        return ()
    option, place = ("TMPDIR", Path(tempfile.gettempdir())) if folder is None else (option, folder)
    return (FolderNeed(option, place, size.least, size.most * (workers or 1), and_more=True),)


def _folder_needs(place: RunPlace, found: EpochInput | None, size: RunSize | None) -> Iterator[FolderNeed]:
    layout = None if found is None else EpochLayout.of(found.context)
    needs = None if size is None else size.needs
    direct = not place.write_dataset and size is not None and not size.exported
    dataset = 0 if needs is None or direct else needs.dataset_bytes
    interiors = 0 if needs is None or direct else needs.interiors_bytes
    interiors_least = 0 if size is not None and size.early else interiors
    edges = needs.edges_bytes if needs is not None and direct else 0
    changes = needs.changes_bytes if needs is not None and dataset and place.rolls_forward else 0
    in_work = place.dataset_url is None
    work = open_store(place.work_url).local_root()
    # What another epoch has left is no part of this one.
    own = "" if layout is None or place.epochs > 1 else layout.folder
    if work is not None:
        kept = dataset if in_work else edges
        there = tuple(work / name / own for name in (("build",) if direct else ("build", "dataset")))
        changed = changes if in_work else 0
        older = dataset if changed else 0
        yield FolderNeed("--work", work, kept + interiors_least + changed, place.lanes * (kept + interiors + changed + older), there=there)
    yield from _sorted_needs("--work", work, found, place.workers)
    if place.write_dataset and place.dataset_url is not None and (folder := open_store(place.dataset_url).local_root()) is not None:
        there = () if layout is None else (folder / layout.folder,)
        yield FolderNeed("--dataset", folder, dataset + changes, dataset * place.epochs + changes * place.lanes, there=there)
    if place.to is not None and (to := open_store(place.to).local_root()) is not None:
        stored, objects = (0, 0) if needs is None else (needs.destination_bytes, needs.destination_objects)
        yield FolderNeed(
            "--to", to, stored, stored * (place.whole_epochs or place.epochs), objects, () if layout is None else (to / layout.folder,)
        )
    if place.tables is not None and (tables := open_store(place.tables).local_root()) is not None:
        size_most = 0 if needs is None else needs.tables_bytes
        own_folders = () if layout is None else tuple(tables.glob(f"kind=*/*/epoch_height={layout.epoch_height}"))
        # What is left out of the tables there is not known to the forecast; and values compress by anything from two to eight times.
        size_least = int(size_most * TABLES_LEAST_SHARE) if _takes_everything(place.tables) else 0
        yield FolderNeed("--tables", tables, size_least, size_most * place.epochs, there=own_folders)


def _takes_everything(url: str) -> bool:
    """Tell whether tables that are written to a place have all columns of all records."""
    with suppress(StatecastError):
        catalogue = read_tables_catalogue(open_store(url))
        return catalogue is None or catalogue.selection.is_whole
    return False
