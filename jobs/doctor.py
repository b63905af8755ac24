"""``statecast doctor``: what a run would meet on this machine, before it is begun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from jobs.dataset_option import dataset_url, refuse_tables_without_dataset, writes_dataset
from jobs.epoch_input import InputOptions
from jobs.keygen import DEFAULT_SIGNING_KEY
from jobs.options import Json, RunOptions
from jobs.preflight import workers_here
from jobs.produce import cache_folder, default_work_folder
from jobs.publish_options import PublishOptions
from jobs.terminal import coloured, open_console, open_table, print_json
from pipelines.execution.machine_limits import available_memory_bytes, machine_cores
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict, failure
from pipelines.producing.preflight.look import (
    TABLES,
    RunPlace,
    RunSize,
    destination_findings,
    folder_findings,
    machine_findings,
    run_size,
    tables_findings,
)
from pipelines.producing.preflight.machine import settings_finding
from pipelines.producing.preflight.node import epoch_finding, shards_findings, snapshots_finding
from pipelines.producing.preflight.run_needs import WORKER_MEMORY_BYTES_MAX
from schemas.errors import InvalidInputError, StatecastError

_COLOURS = {PreflightVerdict.OK: "green", PreflightVerdict.WARN: "yellow", PreflightVerdict.FAIL: "red"}


def doctor(
    *,
    given: InputOptions,
    to: Annotated[
        str | None, typer.Option("--to", help="Where objects would go. A small object is put there, read back and deleted again.")
    ] = None,
    tables: Annotated[
        str | None, typer.Option("--tables", help="Where decoded tables would go, as of produce. It is tried as the destination is.")
    ] = None,
    signing_key: Annotated[
        str | None, typer.Option("--signing-key", metavar="FILE|-|kms://…", help="As of produce.", show_default=False)
    ] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="No key is needed.")] = False,
    dataset: Annotated[str | None, typer.Option("--dataset", metavar="URL|none", help="As of produce.")] = None,
    work: Annotated[str | None, typer.Option("--work", help="As of produce.")] = None,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Look at all that a run needs before it is begun: node, snapshots, key, space, memory, open files, clock, destination, tables.

    Give it the options that `produce` or `watch` will get. It writes one small object under each destination, below statecast-probe/,
    and deletes it again; nothing else. Exit code 2 where something must be mended.

    Example: `statecast doctor --node-home ~/.near --to gs://bucket/prefix`
    """
    findings: list[PreflightFinding] = []
    home = _node_home(given, findings)
    found = _epoch(given, run, findings) if home is not None or given.source else None
    size = None if found is None else run_size(found)
    if found is not None:
        findings += (epoch_finding(found, size), *shards_findings(found))
    if home is not None:
        findings.append(snapshots_finding(home))
    findings += _attempted("key", lambda: (_key_finding(to, signing_key, allow_unsigned),))
    place = RunPlace(
        to=to,
        work_url=work or (default_work_folder(to) if to else cache_folder()),
        dataset_url=dataset_url(dataset),
        workers=workers_here(run, given.node_home),
        tables=tables,
    )
    refuse_tables_without_dataset(dataset, tables)
    if found is not None:
        place = replace(place, write_dataset=writes_dataset(dataset, place, found, tables))
    findings += _attempted("space", lambda: folder_findings(place, found, size))
    findings += machine_findings(place.workers, size, home)
    findings += _attempted("destination", lambda: destination_findings(to, for_claim=place.claims))
    findings += _attempted(TABLES, lambda: tables_findings(tables, found))
    if place.workers is not None:
        worker = WORKER_MEMORY_BYTES_MAX if size is None else size.needs.worker_memory_bytes
        findings.append(settings_finding(machine_cores(), available_memory_bytes(), worker, beside_node=given.node_home is not None))
    failed = sum(finding.verdict is PreflightVerdict.FAIL for finding in findings)
    if as_json:
        print_json(_to_json(findings, size, failed))
    else:
        _print(findings, failed)
    if failed:
        raise typer.Exit(InvalidInputError.exit_code)


def _node_home(given: InputOptions, findings: list[PreflightFinding]) -> NodeHome | None:
    if given.node_home is None:
        return None
    try:
        return read_node_home(given.node_home.expanduser())
    except StatecastError as error:
        findings.append(failure("node", error, "Give the folder that holds config.json and data."))
        return None


def _epoch(given: InputOptions, run: RunOptions, findings: list[PreflightFinding]) -> EpochInput | None:
    try:
        return given.open(run)
    except StatecastError as error:
        remedy = (
            f"`statecast inspect {given.node_home}` shows what the node has." if not given.source else "Name another source with --from."
        )
        findings.append(failure("epoch", error, remedy))
        return None


def _attempted(name: str, look: Callable[[], Iterable[PreflightFinding]]) -> tuple[PreflightFinding, ...]:
    """Take a look; what keeps it from being taken is what is found."""
    try:
        return tuple(look())
    except StatecastError as error:
        return (failure(name, error),)


def _key_finding(to: str | None, signing_key: str | None, allow_unsigned: bool) -> PreflightFinding:
    signer = PublishOptions(to=to or "", signing_key=signing_key, allow_unsigned=allow_unsigned).choose_signer()
    if signer is None:
        remedy = "Readers can then trust a block hash alone; statecast keygen makes a key."
        return PreflightFinding("key", PreflightVerdict.WARN, "there is none: manifests will be unsigned", remedy)
    return PreflightFinding(
        "key", PreflightVerdict.OK, f"it can be used by you alone: {signer.public_key}", "", signing_key or str(DEFAULT_SIGNING_KEY)
    )


def _to_json(findings: Sequence[PreflightFinding], size: RunSize | None, failed: int) -> dict[str, Any]:
    return {
        "message_type": "summary",
        "failed": failed,
        "needs": None if size is None else {**asdict(size.needs), "memory_usage": size.shape.memory_usage},
        "findings": [finding.to_json() for finding in findings],
    }


def _print(findings: Sequence[PreflightFinding], failed: int) -> None:
    table = open_table(("", "what", "found", "what to do"), left=None)
    for finding in findings:
        found = f"{finding.found} [{finding.where}]" if finding.where else finding.found
        table.add_row(coloured((str(finding.verdict), _COLOURS[finding.verdict])), finding.name, found, finding.remedy)
    console = open_console()
    console.print(table)
    if failed:
        console.print(coloured((f"{failed} to be mended before a run", "red")))
    else:
        console.print(coloured(("a run can begin", "green")))
