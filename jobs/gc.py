"""``statecast gc``: deletes epochs that are no longer kept."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import structlog
import typer

from jobs.chain_url import locate_chain
from jobs.options import Json, Plan, open_embedded_executor, parse_duration_s
from jobs.terminal import coloured, format_bytes, open_console, open_table, print_json
from pipelines.execution.machine_limits import machine_cores
from pipelines.execution.progress import NotedProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.collect_epochs import CollectionResult, collect_epochs
from pipelines.keeping.collect_tables import collect_tables
from pipelines.keeping.retention import RetentionRule, Verdict
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.read_only import check_destination
from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url

FOREIGN_SHOWN_MAX = 20
"""Most foreign objects printed for people; ``--json`` has all."""


def gc(
    url: Annotated[
        str | None,
        typer.Argument(help="A bucket's folder, or a chain's in it (…/chain_id=…). Left out: with --tables, of the tables alone."),
    ] = None,
    *,
    keep_epochs: Annotated[int, typer.Option("--keep-epochs", min=1, help="How many complete epochs to keep, the newest.")],
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", min=0, help="Also keep what was published within this many days.", show_default="no more")
    ] = None,
    full_every: Annotated[
        int | None,
        typer.Option(
            "--full-every",
            min=1,
            help="Keep whole parts of epochs whose height is a multiple of this, and of the newest; of the others keep deltas, once their parts "
            "were rebuilt of what stays. Default: whole parts of all.",
            show_default=False,
        ),
    ] = None,
    orphans_after: Annotated[
        str, typer.Option("--orphans-after", help="When a folder without a manifest, in which nothing changes, is deleted.")
    ] = "2d",
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            help="A place of decoded tables: of it too, the newest complete epochs are kept, and views and pointer follow. Default: tables stay.",
            show_default=False,
        ),
    ] = None,
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    plan: Plan = False,
    as_json: Json = False,
) -> None:
    """Delete the epochs of a chain that are no longer kept, and what killed runs left.

    Never deleted: the newest complete epoch, the one that the latest pointer names, one that is being read (a lease) or produced (a
    claim), what a kept epoch is rebuilt of, and objects that are not of this layout. A run that was killed is ended by the next one.

    Examples:

    `statecast gc gs://bucket/prefix/chain_id=mainnet --keep-epochs 10 --keep-days 30 --plan`

    `statecast gc --tables gs://bucket/tables --keep-epochs 100`
    """
    if url is None and tables is None:
        raise InvalidInputError(problem="nothing says where epochs are deleted", remedy="Give a bucket's URL, or --tables, or both.")
    if tables is not None:
        check_destination(tables, "--tables")
    if url is None and (full_every is not None or chain_id is not None):
        where = "--chain-id" if full_every is None else "--full-every"
        raise InvalidInputError(
            problem=f"{where} is of a bucket's epochs", where=where, remedy="Give the bucket's URL too, or leave it out."
        )
    rule = RetentionRule(keep_epochs, keep_days, parse_duration_s(orphans_after, "--orphans-after"), full_every)
    of_parts = None if url is None else _collect(url, chain_id, rule, plan)
    # What a manifest names goes after the manifest.
    of_tables = None if tables is None else collect_tables(tables, rule, plan, on_note=structlog.get_logger().info)
    if as_json:
        document: dict[str, object] = {"message_type": "plan" if plan else "summary"}
        if of_parts is not None:
            root, chain, result = of_parts
            document |= {"url": root, "chain_id": chain, **result.to_json()}
        if of_tables is not None:
            document["tables"] = {"url": tables, "chain_id": of_tables[0], **of_tables[1].to_json()}
        print_json(document)
        return
    if of_parts is not None:
        _print(of_parts[2], of_parts[1])
    if of_tables is not None:
        _print(of_tables[1], f"tables of {of_tables[0]}")


def _collect(url: str, chain_id: str | None, rule: RetentionRule, plan: bool) -> tuple[str, str, CollectionResult]:
    """Collect a bucket's epochs; return its URL, the chain and what became of each."""
    root, chain, layout = locate_chain(url, chain_id)
    if layout is not None:
        raise InvalidInputError(
            problem="a collection is of a chain, not of one epoch", where=shown_url(url), remedy="End the URL at the chain."
        )
    log = structlog.get_logger()
    with ExitStack() as stack:
        executor = open_embedded_executor(machine_cores() if rule.full_every is not None and not plan else 1)
        stack.callback(executor.close)
        rebuild = EpochRebuild(StageRunner(executor, NotedProgress(log.info)), choose_kernel("auto"), root)
        result = collect_epochs(root, chain, rule, plan, prove=rebuild.why_not, on_note=log.info)
    return root, chain, result


def _print(result: CollectionResult, what: str) -> None:
    console = open_console()
    done = "would be deleted" if result.plan_only else "deleted"
    thinned = sum(epoch.decision.verdict is Verdict.THIN for epoch in result.epochs)
    parts = f", parts of {thinned}" if thinned else ""
    title = f"{what}: {len(result.collected)} of {len(result.epochs)} epochs{parts} {done}, {format_bytes(result.deleted_bytes)}"
    table = open_table(("height", "epoch id", "verdict", "objects", "bytes", "why"), left=("epoch id", "verdict", "why"), title=title)
    for epoch in reversed(result.epochs):
        decision = epoch.decision
        goes = decision.verdict is not Verdict.KEEP
        words = {Verdict.COLLECT: (done, "red"), Verdict.THIN: (f"parts {done}", "yellow"), Verdict.KEEP: ("kept", "green")}
        table.add_row(
            f"{decision.layout.epoch_height}",
            str(decision.layout.epoch_id),
            coloured(words[decision.verdict]),
            f"{epoch.deleted_objects:,}" if goes else "",
            format_bytes(epoch.deleted_bytes) if goes else "",
            decision.reason,
        )
    console.print(table)
    for name in result.foreign[:FOREIGN_SHOWN_MAX]:
        console.print(coloured(("foreign, left alone:", "yellow"), f" {name}"), highlight=False, soft_wrap=True)
    if len(result.foreign) > FOREIGN_SHOWN_MAX:
        console.print(f"… and {len(result.foreign) - FOREIGN_SHOWN_MAX} more; --json lists all")
