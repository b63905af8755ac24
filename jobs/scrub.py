"""``statecast scrub``: reads back what is stored, reports what is missing, rotten or foreign, and puts it right from mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from jobs.chain_url import locate_chain
from jobs.event_lines import fail
from jobs.finding_lines import finding_line, not_as_published, place_of, print_lines
from jobs.option_groups import Without
from jobs.options import Json, RunOptions, TrustOptions, check_epoch_selector, open_executor
from jobs.terminal import coloured, format_bytes, open_console, open_progress, open_table, print_json
from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.dataset.arrow_dataset import DATASET_SCHEME
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.findings import Finding
from pipelines.keeping.repair_epoch import Repair
from pipelines.keeping.scrub_chain import ChainScrub, ScrubOutcome, ScrubResult, ScrubSettings, published_epochs
from pipelines.keeping.scrub_sample import parse_sample_ppm
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.base_states import find_base_states
from pipelines.producing.rebuild.remaker import PublishedRemaker
from pipelines.stores.held_folder import held_folder
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError, ObjectMismatchError, PartialResultError, StatecastError
from schemas.published.scrub_state import WHOLE_PPM

SAMPLE_DEFAULT = "5%"

_REPAIR = "Repair"


def scrub(
    *,
    url: Annotated[str, typer.Argument(help="A bucket's folder, a chain's (…/chain_id=…), or an epoch's.")],
    epoch: Annotated[
        list[str] | None, typer.Option("--epoch", help="latest, a height or an id; may be repeated. Default: every published epoch.")
    ] = None,
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    sample: Annotated[
        str | None,
        typer.Option("--sample", help=f"Share of each epoch's parts to read, e.g. 5%; successive runs go on. Default: {SAMPLE_DEFAULT}."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read every part.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Orders the parts for samples; another seed starts over.")] = 0,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Put right what the store itself can tell: manifest, torrents, pointer, catalogue; parts rebuilt of earlier epochs' parts and "
            "deltas, and deltas made again.",
            rich_help_panel=_REPAIR,
        ),
    ] = False,
    repair_from: Annotated[
        list[str] | None,
        typer.Option(
            "--repair-from",
            help="A mirror of the bucket (gs, s3, az, file, http, a path, or what fsspec reads); may be repeated.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    repair_from_folder: Annotated[
        list[Path] | None,
        typer.Option("--repair-from-folder", help="A seeder's --data folder, or a fetch's --into.", rich_help_panel=_REPAIR),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            help="A dataset of a damaged epoch or of an earlier one that lost parts may be made of; may be repeated.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option("--tables", help="Where the epochs' decoded tables are, if they have any. Default: where the manifests say."),
    ] = None,
    trust: Annotated[TrustOptions, Without("trusted_block"), Without("insecure")],
    run: Annotated[RunOptions, Without("kernel")],
    as_json: Json = False,
) -> None:
    """Read back what is stored and compare it with the signed manifests: documents all, parts by sample.

    Every part, delta and file of decoded tables is looked up by name and size; those of the sample are read and digested. A repair puts only
    bytes that the manifest vouches for, of mirrors first, else made again of what the bucket has. Without `--trust-key` a manifest that can't be read may come back as an older revision: the store's newest that can be
    read, without a look at mirrors. Foreign objects are reported, never deleted. Exits with 0 when all is well or repaired, 3 when some
    is repaired, 20 when nothing is.

    Example: `statecast scrub gs://bucket/prefix/chain_id=mainnet --sample 5% --repair-from https://mirror/… --trust-key ed25519:…`
    """
    if full and sample is not None:
        raise InvalidInputError(problem="--full excludes --sample")
    for selector in epoch or ():
        check_epoch_selector(selector)
    rule = trust.rule()
    root, chain, layout = locate_chain(url, chain_id)
    if layout is not None and epoch:
        raise InvalidInputError(problem="the URL names an epoch already", where="--epoch")
    settings = ScrubSettings(
        store_url=root,
        layouts=published_epochs(open_store(root), chain, epoch or ()) if layout is None else (layout,),
        sample_ppm=WHOLE_PPM if full else parse_sample_ppm(sample or SAMPLE_DEFAULT, "--sample"),
        trust=rule,
        seed=seed,
        repair=repair or bool(dataset),
        tables_url=tables,
        chain_id=chain if layout is None else None,
        mirror_urls=(*(repair_from or ()), *map(_folder_url, repair_from_folder or ())),
    )
    kernel = choose_kernel("auto")
    states = tuple(
        state for url in dataset or () for state in find_base_states(f"{DATASET_SCHEME}{url.removeprefix(DATASET_SCHEME)}", kernel.name)
    )
    with closing(open_progress()) as progress, closing(open_executor(run)) as executor, ExitStack() as stack:
        runner = StageRunner(executor, progress)
        remaker = None
        if settings.repair or settings.mirror_urls:
            remaker = PublishedRemaker(runner, kernel, open_store(root).url, stack.enter_context(held_folder("rebuild")), states)
        result = ChainScrub(runner, settings, remaker=remaker).run()
    failure = _failure(result, root)
    if as_json:
        document = {"message_type": "summary", "url": root, "chain_id": chain, "good": failure is None, **_result_json(result)}
        if failure is not None:
            fail(failure, facts=document, as_json=True)
        print_json(document)
        return
    _print(result, chain)
    if failure is not None:
        raise failure


def _folder_url(folder: Path) -> str:
    if not folder.is_dir():
        raise InvalidInputError(problem="no such folder", where=f"--repair-from-folder {folder}")
    return str(folder.absolute())


def _failure(result: ScrubResult, root: str) -> StatecastError | None:
    done = {repair.finding.object_name for repair in result.repairs if repair.is_done}
    left = [finding for finding in result.harmful if finding.object_name not in done]
    if not left:
        return None
    problem, where = not_as_published(left), place_of(left[0], root)
    remedy = (
        "Name a mirror with --repair-from, or a seeder's folder with --repair-from-folder; --repair makes parts and deltas again of what else is "
        "there; statecast produce --repair to the same place makes "
        "parts, statements and torrents again from a node; delete what is foreign."
    )
    if result.repaired:
        return PartialResultError(problem=f"{result.repaired} repaired, {problem}", where=where, remedy=remedy)
    return ObjectMismatchError(problem=problem, where=where, remedy=remedy)


def _result_json(result: ScrubResult) -> dict[str, Any]:
    return {
        "repaired": result.repaired,
        "findings": _findings_json(result.pointers, result.pointer_repairs),
        "epochs": [_epoch_json(outcome) for outcome in result.epochs],
    }


def _findings_json(found: Sequence[Finding], repairs: Sequence[Repair]) -> list[dict[str, Any]]:
    by_name = {repair.finding.object_name: repair for repair in repairs}
    documents = []
    for finding in found:
        repair = by_name.get(finding.object_name)
        documents.append(
            {
                "kind": str(finding.kind),
                "object": finding.object_name,
                "problem": finding.problem,
                "harmless": finding.harmless,
                "repaired_from": repair.source_id if repair is not None and repair.is_done else None,
                "not_repaired": None if repair is None or repair.is_done else repair.problem,
            }
        )
    return documents


def _epoch_json(outcome: ScrubOutcome) -> dict[str, Any]:
    scrubbed = outcome.scrubbed
    window = scrubbed.window
    return {
        "epoch": scrubbed.layout.folder,
        "epoch_height": scrubbed.layout.epoch_height,
        "epoch_id": str(scrubbed.layout.epoch_id),
        "manifest_revision": None if scrubbed.stored is None else scrubbed.stored.manifest.revision,
        "sample": {"full": window.is_full, "length_ppm": window.length_ppm, "start_ppm": window.start_ppm, "seed": window.seed},
        "parts": scrubbed.parts,
        "parts_read": scrubbed.parts_read,
        "bytes_read": scrubbed.bytes_read,
        "rebuilt_from": [step.epoch_height for step in scrubbed.steps],
        "delta_objects": scrubbed.delta_objects,
        "delta_objects_read": scrubbed.delta_objects_read,
        "delta_bytes_read": scrubbed.delta_bytes_read,
        "tables": None
        if scrubbed.tables is None
        else {
            "url": scrubbed.tables.url,
            "files": scrubbed.tables.files,
            "files_read": scrubbed.tables.files_read,
            "bytes_read": scrubbed.tables.bytes_read,
            "unread": scrubbed.tables.unread,
        },
        "findings": _findings_json(scrubbed.findings, outcome.repairs),
    }


def _print(result: ScrubResult, chain_id: str) -> None:
    console = open_console()
    table = open_table(
        ("height", "epoch id", "sample", "parts read", "bytes read", "delta objects read", "wrong", "repaired"),
        left=("epoch id", "sample"),
        title=f"{chain_id}: {len(result.epochs)} epochs scrubbed",
    )
    for outcome in result.epochs:
        scrubbed = outcome.scrubbed
        table.add_row(
            f"{scrubbed.layout.epoch_height}",
            str(scrubbed.layout.epoch_id),
            scrubbed.window.description,
            f"{scrubbed.parts_read:,} of {scrubbed.parts:,}" if not scrubbed.steps else f"had by {deltas_in_words(len(scrubbed.steps))}",
            format_bytes(scrubbed.bytes_read),
            f"{scrubbed.delta_objects_read:,} of {scrubbed.delta_objects:,}" if scrubbed.delta_objects else "none",
            coloured((f"{len(scrubbed.harmful)}", "red")) if scrubbed.harmful else "0",
            f"{outcome.repaired}" if outcome.repairs else "",
        )
    console.print(table)
    lines = _lines(result.pointers, result.pointer_repairs)
    lines += [
        coloured(f"tables of epoch {scrubbed.layout.epoch_height}: not looked at, {scrubbed.tables.unread}")
        for scrubbed in (outcome.scrubbed for outcome in result.epochs)
        if scrubbed.tables is not None and scrubbed.tables.unread
    ]
    lines += [line for outcome in result.epochs for line in _lines(outcome.scrubbed.findings, outcome.repairs)]
    print_lines(console, lines)


def _lines(found: Sequence[Finding], repairs: Sequence[Repair]) -> list[Text]:
    by_name = {repair.finding.object_name: repair for repair in repairs}
    lines = []
    for finding in found:
        repair = by_name.get(finding.object_name)
        told: list[str | tuple[str, str]] = []
        if repair is not None:
            told = ["; ", (f"repaired from {repair.source_id}", "green") if repair.is_done else f"not repaired: {repair.problem}"]
        lines.append(finding_line(finding, *told))
    return lines
