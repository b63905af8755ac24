"""``statecast check``: verifies a published epoch from the outside."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing
from typing import Annotated

import typer

from jobs.event_lines import fail
from jobs.finding_lines import finding_line, not_as_published, place_of, print_lines
from jobs.option_groups import Without
from jobs.options import Json, PublishedShardIds, RunOptions, TrustOptions, open_executor
from jobs.terminal import coloured, format_bytes, open_console, open_progress, open_table, print_json
from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.check_deltas import CheckedDeltas
from pipelines.keeping.check_epoch import WHOLE_EPOCH, CheckResult, EpochCheck, read_signed_manifest, signature_judge
from pipelines.keeping.check_tables import CheckedTables
from pipelines.keeping.scrub_sample import SampleWindow, parse_sample_ppm
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.delta_trial import PublishedTrial
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.held_folder import held_folder
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError, ObjectMismatchError
from schemas.ids import CryptoHash
from schemas.published.scrub_state import SEED_MAX


def check(
    *,
    url: Annotated[
        str, typer.Argument(help="An epoch's folder (…/chain_id=…/epoch_height=…/epoch_id=…), or a bucket's: its latest epoch.")
    ],
    shard_id: PublishedShardIds = None,
    tables: Annotated[
        str | None,
        typer.Option("--tables", help="Where the epoch's decoded tables are, if it has any. Default: where the manifest says."),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            "--sample",
            help="Share of each shard's parts that are read and applied, e.g. 5%; the others are looked up by name and size, and tables "
            "only with --tables. Default: all.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which parts --sample reads; the result names it. Default: another one each time.")
    ] = None,
    trust: Annotated[TrustOptions, Without("insecure")],
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Verify every object of a published epoch: digests, tries against the state roots, key intervals, torrents, signatures.

    Deltas are read back and applied to what they lead from. Decoded tables that the manifest names are read back too, and the state roots
    recomputed from their raw columns.

    Lists what is missing, wrong or foreign and then exits with 20. Without `--trust-key` nothing ties the manifest to a publisher,
    without `--trusted-block` nothing ties the state roots to the chain. An epoch whose parts are kept as deltas is rebuilt in the
    temporary folder first.

    Example: `statecast check gs://bucket/prefix/chain_id=mainnet/epoch_height=3000/epoch_id=… --trust-key ed25519:…`
    """
    rule, block = trust.rule(), trust.block()
    window = _window(sample, seed)
    root, layout = locate_epoch(url)
    chosen_kernel = choose_kernel(run.kernel)
    with closing(open_progress()) as progress, closing(open_executor(run)) as executor, ExitStack() as stack:
        progress.note(f"checking {root}/{layout.folder}, {executor.description}, with the {chosen_kernel.name} kernel")
        runner = StageRunner(executor, progress)
        store, place = open_store(root), root
        signed = read_signed_manifest(store, layout, rule)
        steps = thin_steps(store, signed.stored.manifest, signature_judge(rule, layout.manifest, set()))
        if steps:
            progress.note(f"its parts are rebuilt here: from epoch {steps[0].epoch_height}, by {deltas_in_words(len(steps))}")
            folder = stack.enter_context(held_folder("rebuild"))
            EpochRebuild(runner, chosen_kernel, root).run(layout, steps, folder)
            place = str(folder)
        result = EpochCheck(
            runner=runner,
            kernel_name=chosen_kernel.name,
            store_url=place,
            layout=layout,
            shard_ids=tuple(shard_id or ()),
            trust=rule,
            trusted_block=block,
            tables_url=tables,
            window=window,
            trial=PublishedTrial(runner, chosen_kernel, root, place),
            signed=signed,
            remnants_url=root if steps else None,
        ).run()
    failure = None if result.is_good else _failure(result, root)
    if as_json:
        document = _result_json(result, f"{root}/{layout.folder}", block, window)
        if failure is not None:
            fail(failure, facts=document, as_json=True)
        print_json(document)
        return
    _print_result(result, block, window)
    if failure is not None:
        raise failure


def _window(sample: str | None, seed: int | None) -> SampleWindow:
    if sample is None:
        if seed is not None:
            raise InvalidInputError(problem="--seed chooses the parts of a --sample", where="--seed", remedy="Give --sample too.")
        return WHOLE_EPOCH
    # Nobody shall know beforehand which parts are read.
    return SampleWindow(parse_sample_ppm(sample, "--sample"), seed=secrets.randbelow(SEED_MAX + 1) if seed is None else seed)


def _failure(result: CheckResult, root: str) -> ObjectMismatchError:
    harmful = [finding for finding in result.findings if not finding.harmless]
    return ObjectMismatchError(
        problem=not_as_published(harmful),
        where=place_of(harmful[0], root),
        remedy="statecast produce --repair to the same place makes again what is missing or wrong, statecast scrub --repair parts and deltas "
        "out of what stays; delete what is foreign.",
    )


def _result_json(result: CheckResult, epoch_url: str, trusted_block: CryptoHash | None, window: SampleWindow) -> dict[str, object]:
    manifest = result.stored.manifest
    return {
        "message_type": "summary",
        "epoch_url": epoch_url,
        "good": result.is_good,
        "manifest_revision": manifest.revision,
        "trusted_signers": list(result.signers),
        "sample": None if window.is_full else {"length_ppm": window.length_ppm, "seed": window.seed},
        "tied_to_chain": trusted_block is not None and result.is_good,
        "shards": [
            {
                "shard_id": shard.listed.shard_id,
                "state_root": str(shard.listed.state_root),
                "num_parts": shard.listed.num_parts,
                "parts_right": shard.parts_right,
                "parts_checked": shard.parts_checked,
                "records": shard.records,
                "stored_size": shard.size,
                "state_header": shard.listed.header is not None,
            }
            for shard in result.shards
        ],
        "tables": None
        if result.tables is None
        else {
            "url": result.tables.url,
            "files": result.tables.files,
            "records": result.tables.records,
            "size": result.tables.size,
            "shards_proved": list(result.tables.shards_proved),
            "unproved": result.tables.unproved,
        },
        "deltas": None
        if result.deltas is None
        else {
            "listed": result.deltas.listed,
            "objects": result.deltas.objects,
            "objects_read": result.deltas.objects_read,
            "size": result.deltas.size,
            "applied": result.deltas.applied,
            "untried": list(result.deltas.untried),
        },
        "foreign_looked_for": not result.unlisted,
        "not_published": [
            {"kind": found.kind, "shard_id": found.shard_id, "part_id": found.part_id, "reason": found.reason} for found in manifest.missing
        ],
        "findings": [
            {"kind": finding.kind, "object": finding.object_name, "problem": finding.problem, "harmless": finding.harmless}
            for finding in result.findings
        ],
    }


def _tables_line(tables: CheckedTables) -> str:
    if tables.url is None:
        return f"tables: not looked at, {tables.unproved}"
    proved = f"the state root of {len(tables.shards_proved)} shards recomputed from them"
    read = f"tables {tables.url}: {tables.records:,} rows in {tables.files:,} files, {format_bytes(tables.size)}; {proved}"
    return f"{read}; {tables.unproved}" if tables.unproved else read


def _deltas_line(deltas: CheckedDeltas) -> str:
    applied = f"{deltas.applied:,} of them give the parts' records when they are applied"
    line = f"{deltas.listed:,} deltas: {deltas.objects_read:,} of {deltas.objects:,} objects read, {format_bytes(deltas.size)}; {applied}"
    return "; ".join((line, *(f"not applied: {why}" for why in deltas.untried)))


def _print_result(result: CheckResult, trusted_block: CryptoHash | None, window: SampleWindow) -> None:
    console = open_console()
    manifest = result.stored.manifest
    table = open_table(
        ("shard", "parts right", "records", "stored", "header", "state root"),
        left=("header", "state root"),
        title=f"epoch {manifest.epoch_height} of {manifest.chain_id}, manifest revision {manifest.revision}",
    )
    for shard in result.shards:
        listed = shard.listed
        wanted = listed.num_parts if window.is_full else shard.parts_checked
        right = f"{shard.parts_right:,} of {wanted:,}"
        colour = "green" if shard.parts_right == wanted else "red"
        header = "none" if listed.header is None else "yes"
        table.add_row(
            str(listed.shard_id), coloured((right, colour)), f"{shard.records:,}", format_bytes(shard.size), header, str(listed.state_root)
        )
    console.print(table)
    if not window.is_full:
        shares = f"{window.length_ppm / 10_000:g}% of each shard's parts were read, by seed {window.seed}"
        console.print(f"{shares}; the others are there in their sizes, unless they are named below", highlight=False, soft_wrap=True)
    if result.tables is not None:
        console.print(_tables_line(result.tables), highlight=False, soft_wrap=True)
    if result.deltas is not None:
        console.print(_deltas_line(result.deltas), highlight=False, soft_wrap=True)
    print_lines(console, [finding_line(finding) for finding in result.findings])
    if result.unlisted:
        console.print(f"what does not belong there was not looked for: {result.unlisted}", highlight=False, soft_wrap=True)
    for found in manifest.missing:
        place = "" if found.shard_id is None else f" of shard {found.shard_id}"
        console.print(f"not published: {found.kind.replace('_', ' ')}{place}: {found.reason}", highlight=False, soft_wrap=True)
    signed = f"signed by {', '.join(result.signers)}" if result.signers else "no publisher's signature was asked for"
    if trusted_block is not None:
        console.print(f"{signed}; its state roots are those of the chain of block {trusted_block}", soft_wrap=True)
    elif result.signers:
        console.print(f"{signed}; nothing tied it to the chain itself", soft_wrap=True)
    else:
        console.print(
            coloured(
                ("nothing tied this epoch to a publisher or to the chain", "yellow"),
                ": its tries were checked against the manifest's own state roots",
            )
        )
