"""``statecast fetch``: brings verified state parts of an epoch into a folder, from any number of sources at once."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from jobs.command_time import command_time
from jobs.event_lines import Events, fail, opened_events, write_result
from jobs.fetch_display import FetchDisplay, open_fetch_display
from jobs.options import Json, KernelName, Plan, PublishedShardIds, TrustOptions, epoch_selector, open_embedded_executor
from jobs.source_options import FROM, SourceOptions, WantedFromSources
from jobs.terminal import coloured, format_bytes, format_seconds, open_console, open_table
from pipelines.execution.progress import NotedProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_result import FetchPlan, FetchResult, FetchShard
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.stores.read_only import check_readable_again
from schemas.errors import StatecastError

_WHAT = "What"


def fetch(
    *,
    url: Annotated[
        str, typer.Argument(help="A bucket's folder, a chain's, or an epoch's (…/chain_id=…/epoch_height=…/epoch_id=…); the first source.")
    ],
    into: Annotated[Path, typer.Option("--into", help="Folder that gets the parts under nearcore's object names.", rich_help_panel=_WHAT)],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Parts of an earlier epoch (a folder or bucket), or dataset://URL: where deltas from it are fewer bytes than whole parts, "
            "the parts are rebuilt and compared with the epoch's statements.",
            rich_help_panel=FROM,
        ),
    ] = None,
    chain_id: Annotated[
        str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.", rich_help_panel=_WHAT)
    ] = None,
    epoch: Annotated[
        str | None, typer.Option("--epoch", help="latest (default), an epoch height, or an id.", rich_help_panel=_WHAT)
    ] = None,
    epoch_id: Annotated[str | None, typer.Option("--epoch-id", help="An epoch id; the same as --epoch ID.", rich_help_panel=_WHAT)] = None,
    shard_id: PublishedShardIds = None,
    sources: SourceOptions,
    trust: TrustOptions,
    kernel: KernelName = "auto",
    plan: Plan = False,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Fetch an epoch's state parts from many sources at once, verify each, and put it under its name.

    Nothing is believed without `--trusted-block`, `--trust-key` or both; `--insecure` believes anybody. A rerun keeps what is there and
    right. A source that serves a wrong byte is not asked again and named in the result.

    Example: `statecast fetch gs://bucket/prefix --chain-id mainnet --shard-id 6 --into /data/parts --source https://mirror/… --trusted-block …`
    """
    check_readable_again(str(into), "--into")
    settings = sources.settings(
        WantedFromSources(
            url, chain_id, epoch_selector(epoch, epoch_id), tuple(dict.fromkeys(shard_id or ())), into, trust.policy(), kernel
        )
    )
    with opened_events(events, as_json=as_json) as lines, ExitStack() as stack:
        display = open_fetch_display(lines)
        if base is not None:
            settings = replace(settings, rebuilder=_rebuilder(base, settings, display, stack))
        run = EpochFetch(settings, display)
        try:
            with closing(display):
                if not plan:
                    display.event("note", {"text": f"believing {settings.policy.description}, with the {settings.kernel_name} kernel"})
                found = run.plan() if plan else run.run()
        except StatecastError as error:
            # What came from where counts although the fetch failed.
            fail(error, lines, facts={"sources": [asdict(report) for report in run.source_reports()]}, as_json=as_json)
        document = _plan_json(found, settings) if isinstance(found, FetchPlan) else _result_json(found, settings)
        if write_result(document, lines, as_json=as_json):
            return
    if isinstance(found, FetchPlan):
        _print_plan(found, settings)
    else:
        _print_result(found, settings)


def _rebuilder(base: str, settings: FetchSettings, display: FetchDisplay, stack: ExitStack) -> BaseRebuilder:
    """Return what rebuilds parts on this machine; its processes end with the stack."""
    kernel = choose_kernel(settings.kernel_name)
    executor = open_embedded_executor(settings.verify_workers)
    stack.callback(executor.close)
    runner = StageRunner(executor, NotedProgress(lambda text: display.event("note", {"text": text})))
    return BaseRebuilder(base, runner, kernel, settings.policy, settings.limits.bytes_per_s)


def _shard_json(shard: FetchShard) -> dict[str, object]:
    believed = shard.believed
    return {
        "shard_id": believed.shard_id,
        "state_root": str(believed.listed.state_root),
        "num_parts": believed.listed.num_parts,
        "size": believed.size,
    }


def _planned_shard_json(shard: FetchShard) -> dict[str, object]:
    here = {"parts_here": len(shard.here), "bytes_here": sum(part.size for part in shard.here)}
    to_fetch = sum(part.size for part in shard.fetched) + (0 if shard.way is None else shard.way.size)
    return {**_shard_json(shard), **here, "bytes_to_fetch": to_fetch, "rebuilt_from": _way_json(shard), "signers": shard.signers}


def _way_json(shard: FetchShard) -> dict[str, object] | None:
    way = shard.way
    if way is None:
        return None
    return {"base": way.base, "steps": [asdict(step) for step in way.steps], "bytes": way.size, "parts": len(shard.rebuilt)}


def _fetched_shard_json(shard: FetchShard, tied_to_chain: bool) -> dict[str, object]:
    return {
        **_shard_json(shard),
        "parts_fetched": len(shard.fetched),
        "parts_reused": len(shard.here),
        "parts_rebuilt": len(shard.rebuilt),
        "rebuilt_from": _way_json(shard),
        "signers": shard.signers,
        "tied_to_chain": tied_to_chain,
        "has_header": shard.believed.header is not None,
    }


def _plan_json(planned: FetchPlan, settings: FetchSettings) -> dict[str, object]:
    return {
        "message_type": "plan",
        "epoch": planned.layout.folder,
        "revision": planned.revision,
        "trust": settings.policy.description,
        "shards": [_planned_shard_json(shard) for shard in planned.shards],
        "sources": [asdict(source) for source in planned.sources],
        "warnings": list(planned.warnings),
    }


def _result_json(result: FetchResult, settings: FetchSettings) -> dict[str, object]:
    return {
        "message_type": "summary",
        "folder": str(_folder(result, settings)),
        "revision": result.revision,
        "manifest_source": result.manifest_source,
        "manifest_signers": result.manifest_signers,
        "sync_hash_is_proven": result.sync_hash_is_proven,
        "shards": [_fetched_shard_json(shard, result.tied_to_chain) for shard in result.shards],
        "sources": [asdict(source) for source in result.sources],
        "warnings": result.warnings,
        "seconds": command_time.seconds(),
        "trust": settings.policy.description,
        "epoch": result.layout.folder,
    }


def _folder(result: FetchResult, settings: FetchSettings) -> Path:
    return settings.into.absolute() / result.layout.folder


def _print_plan(planned: FetchPlan, settings: FetchSettings) -> None:
    console = open_console()
    table = open_table(
        ("shard", "parts", "bytes", "here", "to fetch", "state root"),
        left=("state root",),
        title=f"{planned.layout.folder}, manifest revision {planned.revision}",
    )
    for shard in planned.shards:
        table.add_row(
            str(shard.believed.shard_id),
            f"{len(shard.believed.parts):,}",
            format_bytes(shard.believed.size),
            f"{len(shard.here):,}, {format_bytes(sum(part.size for part in shard.here))}",
            f"{len(shard.fetched):,}, {format_bytes(sum(part.size for part in shard.fetched))}",
            str(shard.believed.listed.state_root),
        )
    console.print(table)
    for shard in planned.shards:
        if shard.way is not None:
            console.print(_way_line(shard), highlight=False, soft_wrap=True)
    for source in planned.sources:
        console.print(
            f"asked first for {source.parts:,} parts, {format_bytes(source.size)}: {source.source_id}", highlight=False, soft_wrap=True
        )
    console.print(f"believed: {settings.policy.description}", highlight=False, soft_wrap=True)


def _print_result(result: FetchResult, settings: FetchSettings) -> None:
    console = open_console()
    table = open_table(
        ("shard", "parts", "fetched", "were here", "bytes", "state root"),
        left=("state root",),
        title=f"{_folder(result, settings)}, manifest revision {result.revision}, {format_seconds(command_time.seconds())}",
    )
    for shard in result.shards:
        table.add_row(
            str(shard.believed.shard_id),
            f"{len(shard.believed.parts):,}",
            f"{len(shard.fetched):,}",
            f"{len(shard.here):,}",
            format_bytes(shard.believed.size),
            str(shard.believed.listed.state_root),
        )
    console.print(table)
    for shard in result.shards:
        if shard.way is not None:
            console.print(_way_line(shard), highlight=False, soft_wrap=True)
    columns = ("source", "parts", "bytes used", "received", "errors", "remarks")
    sources = open_table(columns, left=("source", "remarks"), title="What came from where")
    for source in result.sources:
        remark = (
            coloured((f"banned: {source.banned}", "red")) if source.banned else f"given up: {source.given_up}" if source.given_up else ""
        )
        sources.add_row(
            source.source_id,
            f"{source.parts:,}",
            format_bytes(source.bytes_used),
            format_bytes(source.bytes_received),
            str(source.errors),
            remark,
        )
    console.print(sources)
    console.print(_trust_line(result, settings), highlight=False, soft_wrap=True)


def _way_line(shard: FetchShard) -> str:
    way = shard.way
    assert way is not None, "the caller looked"
    heights = " → ".join(map(str, (way.steps[0].base_epoch_height, *(step.epoch_height for step in way.steps)))) if way.steps else "none"
    whole = format_bytes(sum(part.size for part in shard.rebuilt))
    return (
        f"shard {shard.believed.shard_id}: {len(shard.rebuilt):,} parts ({whole}) rebuilt of {format_bytes(way.size)} of deltas, "
        f"epochs {heights}, from {way.base}"
    )


def _trust_line(result: FetchResult, settings: FetchSettings) -> Text:
    if settings.policy.insecure:
        return coloured(
            ("nothing tied this epoch to a publisher or to the chain", "yellow"),
            ": parts were verified against the manifest's own state roots",
        )
    told = []
    if settings.policy.trusted_block is not None:
        unproven = "" if result.sync_hash_is_proven else " (its own hash is not proven: the trusted block is the sync block's parent)"
        told.append(f"the state roots are tied to block {settings.policy.trusted_block}{unproven}")
    if settings.policy.keys is not None:
        signers = sorted({signer for shard in result.shards for signer in shard.signers} | set(result.manifest_signers))
        told.append(f"signed by {', '.join(signers)}")
    return coloured("; ".join(told))
