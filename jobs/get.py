"""``statecast get``: many records out of many published epochs, as a table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from jobs.command_time import command_time
from jobs.option_groups import Without
from jobs.options import Json, KernelName, Plan, TrustOptions
from jobs.prove import read_shard_layout_file
from jobs.terminal import format_bytes, open_console, open_progress, print_json
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.producing.backfill.backfill_epochs import parse_epoch_range
from pipelines.proving.answer_table import AnswerKind, answer_format
from pipelines.proving.find_published import find_published, heights_text, latest_published, missing_epochs
from pipelines.proving.get_records import CONNECTIONS, EpochAnswer, GetRequest, plan_get
from pipelines.proving.get_to_file import GetSummary, KeptAnswers, get_to_file
from pipelines.proving.wanted_file import read_wanted_file, unrepeated, wanted_of_kind
from pipelines.proving.wanted_record import WantedRecord
from pipelines.seeding.epoch_feed import find_chain
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout

_WHAT = "What is looked up"
LATEST = "latest"


def get_answers(
    *,
    url: Annotated[str, typer.Argument(help="A bucket's folder, a chain's in it (…/chain_id=…), or an epoch's.")],
    account: Annotated[list[str] | None, typer.Option("--account", help="An account id; may be repeated.", rich_help_panel=_WHAT)] = None,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="File with an account id a line; # begins a comment.", rich_help_panel=_WHAT)
    ] = None,
    access_keys: Annotated[
        Path | None,
        typer.Option("--access-keys", help="File with an account id and a public key (ed25519:…) a line.", rich_help_panel=_WHAT),
    ] = None,
    contract_keys: Annotated[
        Path | None,
        typer.Option(
            "--contract-keys",
            help="File with an account id and a key of its contract's storage a line: a text, hex:… or base64:….",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    epochs: Annotated[
        str, typer.Option("--epochs", help="Heights A..B (both ends belong to it), one height, or latest.", rich_help_panel=_WHAT)
    ] = LATEST,
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    shard_layout: Annotated[
        Path | None,
        typer.Option("--shard-layout", help="JSON file with the shard layout of all these epochs. Without it: that of each manifest."),
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="File that gets the answers: .parquet, .csv or .jsonl.")],
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Go on where epochs of the range are not published.")] = False,
    connections: Annotated[int, typer.Option("--connections", min=1, max=256, help="Most parts at once.")] = CONNECTIONS,
    trust: Annotated[TrustOptions, Without("insecure")],
    kernel: KernelName = "auto",
    plan: Plan = False,
    as_json: Json = False,
) -> None:
    """Look many accounts, access keys or contract entries up in many published epochs, and write a table of the answers.

    Statements name the part that holds a key: each part that is needed is read once and verified against its epoch's state root, many at
    a time. A row an epoch and record says whether it existed. A rerun goes on where an earlier one ended.

    Example: `statecast get gs://bucket/prefix --accounts accounts.txt --epochs 2900..3000 --to balances.parquet`
    """
    kind, wanted = _wanted(account or [], accounts, access_keys, contract_keys)
    answer_format(to)
    rule, trusted = trust.rule(), trust.block()
    store, chain, named = _locate(url, chain_id)
    layouts, missing = _layouts(store, chain, named, epochs)
    if missing and not (skip_missing and layouts):
        raise missing_epochs(store, chain, missing)
    if trusted is not None and len(layouts) > 1:
        raise InvalidInputError(problem="a trusted block ties one epoch alone", where="--trusted-block", remedy="Give --trust-key.")
    request = GetRequest(
        store=store,
        wanted=wanted,
        # Like `prove` and `check`, this trusts every manifest and says so.
        policy=TrustPolicy(rule, trusted, insecure=rule is None and trusted is None),
        shard_layout=None if shard_layout is None else read_shard_layout_file(shard_layout),
        kernel_name=kernel,
        connections=connections,
    )
    to = to.expanduser()
    if plan:
        _print_plan(request, layouts, missing, kind, to, as_json)
        return
    with closing(open_progress()) as progress:
        done = 0

        def on_answer(answer: EpochAnswer) -> None:
            nonlocal done
            done += 1
            exist = sum(1 for record in answer.found if record.value is not None)
            progress.note(f"epoch {answer.layout.epoch_height}: {exist} of {len(wanted)} exist ({done} done, {len(layouts)} epochs in all)")

        summary = get_to_file(request, layouts, kind, to, on_answer)
    _print_summary(summary, request, missing, to, as_json)


def _wanted(
    account: list[str], accounts: Path | None, access_keys: Path | None, contract_keys: Path | None
) -> tuple[AnswerKind, tuple[WantedRecord, ...]]:
    """Return what is asked for: records of one kind, since a table has one."""
    given = {AnswerKind.ACCOUNT: accounts or account, AnswerKind.ACCESS_KEY: access_keys, AnswerKind.CONTRACT_DATA: contract_keys}
    kinds = [kind for kind, value in given.items() if value]
    if len(kinds) != 1:
        raise InvalidInputError(
            problem="nothing says what is looked up" if not kinds else "a table is of one kind",
            remedy="Give --account or --accounts, or --access-keys, or --contract-keys.",
        )
    (kind,) = kinds
    path = {AnswerKind.ACCOUNT: accounts, AnswerKind.ACCESS_KEY: access_keys, AnswerKind.CONTRACT_DATA: contract_keys}[kind]
    wanted = [wanted_of_kind(kind, name) for name in account]
    return kind, unrepeated(wanted if path is None else wanted + read_wanted_file(path.expanduser(), kind))


def _locate(url: str, chain_id: str | None) -> tuple[Store, str, EpochLayout | None]:
    """Return the store, the chain, and the epoch where the URL names one; a web server is not listed where the chain is said."""
    located = parse_epoch_url(url)
    if located.chain_id is not None and chain_id not in (None, located.chain_id):
        raise InvalidInputError(problem=f"the URL is of chain {located.chain_id}, not {chain_id}", where="--chain-id")
    store = open_store(located.root)
    return store, located.chain_id or chain_id or find_chain(store), located.layout


def _layouts(store: Store, chain: str, named: EpochLayout | None, epochs: str) -> tuple[list[EpochLayout], list[int]]:
    if named is not None:
        if epochs != LATEST:
            raise InvalidInputError(
                problem="the URL names an epoch", where="--epochs", remedy="Give the chain's URL, or leave --epochs out."
            )
        return [named], []
    if epochs.strip() == LATEST:
        return [latest_published(store, chain)], []
    return find_published(store, chain, parse_epoch_range(epochs))


def _print_plan(request: GetRequest, layouts: list[EpochLayout], missing: list[int], kind: AnswerKind, to: Path, as_json: bool) -> None:
    kept = KeptAnswers.beside(to, request, kind)
    asked = [layout for layout in layouts if not kept.has(layout)]
    plans = list(plan_get(request, asked))
    parts, size = sum(one.parts for one in plans), sum(one.size for one in plans)
    if as_json:
        document = {
            "message_type": "plan",
            "epochs": len(layouts),
            "epochs_kept": len(layouts) - len(asked),
            "missing_epochs": missing,
            "records": len(request.wanted),
            "parts": parts,
            "bytes": size,
        }
        print_json(document)
        return
    console = open_console()
    text = f"{len(request.wanted):,} records in {len(asked):,} epochs: {parts:,} parts, {format_bytes(size)} to read"
    console.print(text, highlight=False, soft_wrap=True)
    if len(asked) < len(layouts):
        console.print(f"{len(layouts) - len(asked):,} epochs were answered by an earlier run", highlight=False, soft_wrap=True)
    _print_missing(missing)


def _print_summary(summary: GetSummary, request: GetRequest, missing: list[int], to: Path, as_json: bool) -> None:
    if as_json:
        document = {
            "message_type": "summary",
            "file": str(to),
            "rows": summary.rows,
            "records": len(request.wanted),
            "epochs": summary.epochs,
            "epochs_kept": summary.epochs_kept,
            "missing_epochs": missing,
            "parts_read": summary.parts_read,
            "bytes_read": summary.bytes_read,
            "trust": request.policy.description,
            "signers": list(summary.signers),
            "seconds": round(command_time.seconds(), 3),
        }
        print_json(document)
        return
    console = open_console()
    console.print(f"{summary.rows:,} rows of {summary.epochs:,} epochs written to {to}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"read {summary.parts_read:,} parts, {format_bytes(summary.bytes_read)}, each verified against its epoch's state root; "
        f"manifests believed: {request.policy.description}",
        highlight=False,
        soft_wrap=True,
    )
    _print_missing(missing)


def _print_missing(missing: list[int]) -> None:
    if missing:
        open_console().print(f"not published, and left out: epochs {heights_text(missing)}", highlight=False, soft_wrap=True)
