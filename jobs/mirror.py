"""``statecast mirror``: epochs of other stores into one's own, verified, resumed where it ended, the manifest last."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.command_time import command_time
from jobs.event_lines import EventLines, Events, fail, opened_events, write_result
from jobs.fetch_display import open_fetch_display
from jobs.options import (
    IgnoreClaim,
    Json,
    KernelName,
    Plan,
    PollInterval,
    TrustOptions,
    open_embedded_executor,
    parse_interval_s,
    parse_rate,
)
from jobs.produce import default_work_folder
from jobs.source_options import SourceOptions, WantedFromSources
from jobs.terminal import coloured, format_bytes, format_seconds, open_console, open_table
from pipelines.execution.progress import NotedProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.fetch_result import FetchPlan
from pipelines.mirroring.epoch_choice import LATEST, EpochChoice
from pipelines.mirroring.mirror_epochs import MirroredEpoch, MirrorRun, MirrorSettings
from pipelines.mirroring.store_target import UPLOADS, MirrorState, StoreTerms
from pipelines.producing.claimed_production import ClaimTerms
from pipelines.stores.read_only import check_destination, check_readable_again
from schemas.errors import PartialResultError, StatecastError

_WHAT = "What"
_INTO = "Into what"

UPLOADS_MAX = 64


def mirror(
    *,
    url: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A bucket's folder, a chain's, or an epoch's (…/chain_id=…/epoch_height=…/epoch_id=…); the first source."
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION", help="Where the epochs go: gs://bucket/prefix, s3://bucket/prefix, az://container/prefix, or a folder."
        ),
    ],
    epochs: Annotated[
        str,
        typer.Option(
            "--epochs",
            help="latest, a height, LO..HI (both included), LO.. or latest.., which go on with each epoch that is published later.",
            rich_help_panel=_WHAT,
        ),
    ] = LATEST,
    chain_id: Annotated[
        str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.", rich_help_panel=_WHAT)
    ] = None,
    sources: SourceOptions,
    trust: TrustOptions,
    uploads: Annotated[
        int, typer.Option("--uploads", min=1, max=UPLOADS_MAX, help="Parts that are put at once.", rich_help_panel=_INTO)
    ] = UPLOADS,
    upload_limit: Annotated[
        str | None,
        typer.Option("--upload-limit", help="Most bytes of parts a second to upload, e.g. 50MB. Default: no limit.", rich_help_panel=_INTO),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild/--no-rebuild",
            help="Where deltas from an epoch at the destination are fewer bytes than whole parts, rebuild the parts there and compare.",
            rich_help_panel=_INTO,
        ),
    ] = True,
    ignore_claim: IgnoreClaim = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder of this machine for parts on their way, and for the memory of what was accepted. Default: as for produce.",
            rich_help_panel=_INTO,
            show_default=False,
        ),
    ] = None,
    poll_interval: PollInterval = "60s",
    once: Annotated[
        bool, typer.Option("--once", help="End when all that is published is there, with LO.. and latest.. too.", rich_help_panel=_WHAT)
    ] = False,
    kernel: KernelName = "auto",
    plan: Plan = False,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Copy epochs from other stores, web servers, torrents or nodes into a store: verified, resumed where it ended, the manifest last.

    Nothing is believed without `--trusted-block`, `--trust-key` or both; `--insecure` believes anybody. Every object is verified here before
    it has its name at the destination, and read back. Signed documents go over as they are. What is there and whole is left alone. An epoch
    that fails leaves the others alone and makes the exit code 3; the same command does what is left.

    Example: `statecast mirror gs://their/near s3://mine/near --chain-id mainnet --epochs latest.. --trust-key ed25519:…`
    """
    check_destination(destination, "DESTINATION")
    check_readable_again(destination, "DESTINATION")
    choice = EpochChoice.parse(epochs)
    into = work or Path(default_work_folder(destination, "mirror"))
    fetching = sources.settings(WantedFromSources(url, chain_id, LATEST, (), into, trust.policy(), kernel))
    terms = StoreTerms(
        policy=fetching.policy,
        claim=ClaimTerms(ignore=ignore_claim),
        uploads=uploads,
        upload_limit_bytes_per_s=None if upload_limit is None else parse_rate(upload_limit, "--upload-limit"),
    )
    settings = MirrorSettings(fetching, destination, choice, terms, parse_interval_s(poll_interval), once)
    with opened_events(events, as_json=as_json) as lines, ExitStack() as stack:
        display = open_fetch_display(lines)
        run = MirrorRun(settings, display)
        if rebuild:
            executor = open_embedded_executor(fetching.verify_workers)
            stack.callback(executor.close)
            run.runner = StageRunner(executor, NotedProgress(lambda text: display.event("note", {"text": text})))
        try:
            with closing(display):
                if plan:
                    planned = run.plan()
                else:
                    display.event("note", {"text": f"believing {fetching.policy.description}, with the {fetching.kernel_name} kernel"})
                    run.run()
        except StatecastError as error:
            fail(error, lines, facts={"epochs": [outcome.to_json() for outcome in run.outcomes.values()]}, as_json=as_json)
        if plan:
            _tell_plan(planned, settings, lines, as_json)
        else:
            _finish(run, settings, lines, as_json)


def _finish(run: MirrorRun, settings: MirrorSettings, lines: EventLines | None, as_json: bool) -> None:
    outcomes = list(run.outcomes.values())
    document = {
        "message_type": "summary",
        "destination": settings.destination,
        "trust": settings.fetch.policy.description,
        "epochs": [outcome.to_json() for outcome in outcomes],
        "absent": list(run.absent),
        "seconds": command_time.seconds(),
    }
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(failed) == len(outcomes) == 1:
        fail(failed[0], lines, facts=document | {"message_type": "error"}, as_json=as_json)
    if failed:
        problem = f"{len(failed)} of {len(outcomes)} epochs could not be mirrored: {failed[0]}"
        error = PartialResultError(problem=problem, where=settings.destination, remedy="The same command does what is left.")
        if not as_json and (lines is None or not lines.on_standard_output):
            _print_result(outcomes, run.absent, settings)
        fail(error, lines, facts=document, as_json=as_json)
    if not write_result(document, lines, as_json=as_json):
        _print_result(outcomes, run.absent, settings)


def _print_result(outcomes: Sequence[MirroredEpoch], absent: Sequence[int], settings: MirrorSettings) -> None:
    console = open_console()
    table = open_table(
        ("epoch", "state", "revision", "parts copied", "rebuilt", "were there", "bytes copied", "received"),
        left=("epoch", "state"),
        title=f"{settings.destination}, {format_seconds(command_time.seconds())}",
    )
    colours = {MirrorState.COPIED: "green", MirrorState.WHOLE: "green", MirrorState.NEWER: "yellow", None: "red"}
    for outcome in outcomes:
        table.add_row(
            outcome.epoch,
            coloured((outcome.state or "failed", colours[outcome.state])),
            "-" if outcome.revision is None else str(outcome.revision),
            f"{outcome.parts_copied:,}",
            f"{outcome.parts_rebuilt:,}",
            f"{outcome.parts_there:,}",
            format_bytes(outcome.bytes_copied),
            format_bytes(outcome.bytes_received),
        )
    console.print(table)
    for outcome in outcomes:
        if outcome.error is not None:
            console.print(coloured((outcome.epoch, "red"), f" {outcome.error}"), highlight=False, soft_wrap=True)
    if absent:
        console.print(f"no source has the epochs {', '.join(map(str, absent))}", highlight=False, soft_wrap=True)


def _tell_plan(planned: Sequence[FetchPlan], settings: MirrorSettings, lines: EventLines | None, as_json: bool) -> None:
    rows = [_planned_json(one) for one in planned]
    document = {
        "message_type": "plan",
        "destination": settings.destination,
        "trust": settings.fetch.policy.description,
        "epochs": rows,
        "bytes": sum(row["bytes"] for row in rows),
    }
    if write_result(document, lines, as_json=as_json):
        return
    table = open_table(
        ("epoch", "revision", "parts", "there", "to copy", "to rebuild", "bytes"),
        left=("epoch",),
        title=f"would copy to {settings.destination}",
    )
    for row in rows:
        table.add_row(
            row["epoch"],
            str(row["revision"]),
            f"{row['parts']:,}",
            f"{row['parts_there']:,}",
            f"{row['parts'] - row['parts_there'] - row['parts_rebuilt']:,}",
            f"{row['parts_rebuilt']:,}",
            format_bytes(row["bytes"]),
        )
    console = open_console()
    console.print(table)
    console.print(f"believed: {settings.fetch.policy.description}", highlight=False, soft_wrap=True)


def _planned_json(planned: FetchPlan) -> dict[str, Any]:
    there = sum(len(shard.here) for shard in planned.shards)
    return {
        "epoch": planned.layout.folder,
        "revision": planned.revision,
        "parts": there + sum(len(shard.missing) for shard in planned.shards),
        "parts_there": there,
        "parts_rebuilt": sum(len(shard.rebuilt) for shard in planned.shards),
        "bytes": sum(part.size for shard in planned.shards for part in shard.fetched)
        + sum(shard.way.size for shard in planned.shards if shard.way is not None),
        "warnings": list(planned.warnings),
    }
