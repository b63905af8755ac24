"""``statecast produce``: an epoch's state parts, computed, published, verified and signed."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from jobs.epoch_input import EpochInput, InputOptions, open_input
from jobs.options import (
    ContextFile,
    Epoch,
    EpochId,
    From,
    IgnoreClaim,
    InProcess,
    Json,
    KernelName,
    NodeHome,
    Plan,
    RayAddress,
    RayPatience,
    ReadLimit,
    Rpc,
    RpcRate,
    ShardIds,
    StateWalkOption,
    Workers,
    epoch_selector,
    open_executor,
    reader_count,
)
from jobs.produce_summary import print_nothing_to_do, print_summary, result_json
from jobs.publish_options import AllowUnsigned, EncodingOption, NumParts, SigningKey, To, Trackers, WebSeeds, ZstdLevel, choose_signer
from jobs.report import write_report
from jobs.terminal import format_bytes, open_console, open_progress
from pipelines.bucket.epoch_claim import remove_dead_claim
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.rpc_client import REQUESTS_PER_S
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.producing.build.plan_parts import decide_num_parts
from pipelines.producing.claimed_production import ClaimTerms, claimed
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.shared_folders import require_readable
from pipelines.stores.held_work_folder import held_work_folder
from pipelines.stores.open_store import open_store
from schemas.errors import ClaimedError, EpochNotReadyError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding, default_encoding
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class _Output:
    """What the options say about the output."""

    to: str
    num_parts: int | None
    encoding: Encoding | None
    zstd_level: int
    web_seeds: tuple[str, ...]
    trackers: tuple[str, ...]


def produce(
    to: To,
    node_home: NodeHome = None,
    source: From = None,
    context: ContextFile = None,
    rpc: Rpc = None,
    rpc_rate: RpcRate = REQUESTS_PER_S,
    epoch: Epoch = None,
    epoch_id: EpochId = None,
    shard_id: ShardIds = None,
    num_parts: NumParts = None,
    encoding: EncodingOption = None,
    zstd_level: ZstdLevel = 1,
    signing_key: SigningKey = None,
    allow_unsigned: AllowUnsigned = False,
    web_seed: WebSeeds = None,
    tracker: Trackers = None,
    read_limit: ReadLimit = None,
    state_walk: StateWalkOption = StateWalk.AUTO,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Where the exported records go and stay; all workers must share it. Default: in the work folder, and removed in the end.",
        ),
    ] = None,
    work: Annotated[
        str | None,
        typer.Option(
            "--work", help="Folder or bucket for what stages leave each other. Default: a folder of this run under ~/.cache/statecast."
        ),
    ] = None,
    keep_work: Annotated[
        bool, typer.Option("--keep-work", help="Leave what is in the work folder: the export and what the stages left each other.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML report to write. Default: report.html in a local work folder.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Read back every object that is published already, and make again what is damaged.")
    ] = False,
    kernel: KernelName = "auto",
    ray_address: RayAddress = None,
    ray_patience: RayPatience = None,
    workers: Workers = None,
    in_process: InProcess = False,
    plan: Plan = False,
    if_missing: Annotated[
        bool,
        typer.Option(
            "--if-missing",
            help="For schedulers: exit 0 with one line where there is nothing to do now: the epoch is published, another live producer "
            "holds it, or (without --epoch and --context) the node has no new epoch ready. Every other failure keeps its exit code.",
        ),
    ] = False,
    ignore_claim: IgnoreClaim = False,
    as_json: Json = False,
) -> None:
    """Compute an epoch's state parts and publish them, every object read back and verified, the signed manifest last.

    The newest epoch that the source can give, and all its shards, unless you name others. Any process may be killed at any moment:
    the same command goes on where it ended, and does nothing when nothing is missing. Damage within objects is found by
    `statecast check` and mended with `--repair`. A second producer of the same shards ends with exit code 12 while the first is alive.

    Examples:

    `statecast produce --node-home ~/.near --to gs://bucket/prefix`

    `statecast produce --from dataset:///data/state --to s3://bucket/prefix --shard-id 6 --num-parts 33`
    """
    chosen_kernel = choose_kernel(kernel)
    options = InputOptions(
        node_home,
        source,
        context,
        epoch,
        epoch_id,
        tuple(shard_id or ()),
        read_limit,
        reader_count(workers, in_process),
        state_walk,
        tuple(rpc or ()),
        rpc_rate,
    )
    try:
        found = open_input(options)
    except EpochNotReadyError as error:
        if not if_missing or context is not None or epoch_selector(epoch, epoch_id) != "latest":
            raise
        print_nothing_to_do("not_ready", f"no epoch is ready yet: {error}", as_json)
        return
    output = _Output(to, num_parts, encoding, zstd_level, tuple(web_seed or ()), tuple(tracker or ()))
    if plan:
        _print_plan(found, output, chosen_kernel.name, as_json)
        return
    publisher = EpochPublisher(
        store_url=to,
        signer=choose_signer(signing_key, allow_unsigned),
        web_seeds=output.web_seeds,
        trackers=output.trackers,
        zstd_level=zstd_level,
        encoding=_encoding(output, found.context),
    )
    published = publisher.find_published(found.context, num_parts)
    if published is not None and not repair:
        remove_dead_claim(open_store(to), publisher.layout(found.context))
        epoch_url, revision = publisher.epoch_url(found.context), published.revision
        message = f"{epoch_url} is published, manifest revision {revision}; statecast check verifies it"
        print_nothing_to_do("published" if if_missing else True, message, as_json, epoch_url=epoch_url, manifest_revision=revision)
        return
    work_url = work or default_work_folder(to)
    settings = ProductionSettings.in_folder(work_url, dataset, num_parts=num_parts, keep_work=keep_work)
    try:
        with (
            closing(open_progress()) as progress,
            claimed(to, found.context, ClaimTerms(ignore=ignore_claim), progress) as run,
            held_work_folder(work_url, alone=False),
            closing(open_executor(ray_address, workers, in_process, ray_patience)) as executor,
        ):
            require_readable(executor, "--from", found.datasets)
            if ray_address and not (work or dataset):
                progress.note(f"the work folder is {work_url}: every worker of the cluster must see it; --work names another")
            progress.note(f"producing from {found.describe()}, {executor.description}, with the {chosen_kernel.name} kernel")
            runner = StageRunner(executor, progress, run.keep_going)
            result = EpochProduction(
                runner=runner,
                kernel=chosen_kernel,
                context=found.context,
                source=found.source,
                datasets=found.datasets,
                publisher=publisher,
                settings=settings,
                described=found.describe(),
                epoch_shard_ids=found.epoch_shard_ids,
                before_manifest=run.confirm,
            ).run()
    except ClaimedError as error:
        if not if_missing:
            raise
        print_nothing_to_do("claimed", str(error), as_json)
        return
    report_file = report or (None if "://" in work_url else Path(work_url) / "report.html")
    if report_file is not None:
        report_file = _written_report(report_file, result, runner)
    if as_json:
        typer.echo(json.dumps(result_json(result, runner, report_file)))
    else:
        print_summary(result, report_file)


def _written_report(report_file: Path, result: EpochResult, runner: StageRunner) -> Path | None:
    """Write the report; the epoch is published by now, so a report that can't be written is said and is no failure."""
    try:
        write_report(report_file, result, runner.timings)
    except OSError as error:
        runner.progress.note(f"the report can't be written: {error.strerror or error} [{report_file}]")
        return None
    return report_file


def _encoding(output: _Output, context: EpochContext) -> Encoding:
    return output.encoding or default_encoding(context.protocol_version)


def default_work_folder(to: str, *options: str) -> str:
    """Return a folder that a rerun with the same destination, and the same of some other options, finds again."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    destination = to if "://" in to else str(Path(to).resolve())
    digest = hashlib.sha256("\0".join((destination, *options)).encode()).hexdigest()
    return f"{cache}/statecast/{digest[:16]}"


def _print_plan(found: EpochInput, output: _Output, kernel_name: str, as_json: bool) -> None:
    """Say what would be done, from what can be known without reading a shard."""
    shards: list[dict[str, Any]] = []
    for shard in found.context.shards:
        memory_usage = found.source.root_memory_usage(shard) if found.source else None
        for dataset in found.datasets:
            if dataset.summary.shard.shard_uid == shard.shard_uid:
                memory_usage = dataset.summary.memory_usage
        num_parts = output.num_parts if memory_usage is None else decide_num_parts(memory_usage, output.num_parts)
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
    document = {
        "message_type": "plan",
        "source": found.describe(),
        "to": f"{open_store(output.to).url}/{layout.folder}",
        "encoding": str(_encoding(output, found.context)),
        "kernel": kernel_name,
        "context": found.context.to_json(),
        "shards": shards,
    }
    if as_json:
        typer.echo(json.dumps(document))
        return
    table = Table(
        title=f"would publish epoch {found.context.epoch_height} of {found.context.chain_id} to {document['to']}", title_justify="left"
    )
    for name in ("shard", "parts", "memory usage", "state root"):
        table.add_column(name, justify="left" if name in ("shard", "state root") else "right", overflow="fold")
    for shard_plan in shards:
        memory = shard_plan["memory_usage"]
        table.add_row(
            shard_plan["shard_uid"],
            "after reading" if shard_plan["num_parts"] is None else f"{shard_plan['num_parts']:,}",
            "after reading" if memory is None else format_bytes(memory),
            shard_plan["state_root"] or "to be computed",
        )
    open_console().print(table)
