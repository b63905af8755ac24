"""``statecast produce``: an epoch's state parts, computed, published, verified and signed."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from jobs.dataset_option import Dataset, dataset_url, refuse_tables_without_dataset, writes_dataset
from jobs.epoch_input import InputOptions
from jobs.network_input import NetworkOptions, network_executor
from jobs.options import IgnoreClaim, Json, Plan, RunOptions, open_executor
from jobs.preflight import NoPreflight, require_fit, workers_here
from jobs.produce_plan import PlannedRun, print_plan
from jobs.produce_summary import print_nothing_to_do, print_summary, result_json
from jobs.publish_options import PublishOptions
from jobs.report import write_report
from jobs.terminal import open_progress, print_json
from pipelines.bucket.epoch_claim import remove_dead_claim
from pipelines.execution.executor import Executor
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.epoch_context_source import LATEST
from pipelines.producing.claimed_production import ClaimTerms, claimed
from pipelines.producing.deltas.ladder_savings import ladder_savings
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.look import RunPlace
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.shared_folders import require_readable
from pipelines.stores.held_work_folder import held_work_folder, remove_dead_scratch, scratch_folder
from pipelines.stores.open_store import open_store
from schemas.errors import ClaimedError, EpochNotReadyError, StoreError


def produce(
    *,
    publish: PublishOptions,
    given: InputOptions,
    network: NetworkOptions,
    dataset: Dataset = None,
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
    run: RunOptions,
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
    no_preflight: NoPreflight = False,
    as_json: Json = False,
) -> None:
    """Compute an epoch's state parts and publish them, every object read back and verified, the signed manifest last.

    The newest epoch that the source can give, and all its shards, unless you name others. Any process may be killed at any moment:
    the same command goes on where it ended, and does nothing when nothing is missing. Damage within objects is found by
    `statecast check` and mended with `--repair`. A second producer of the same shards ends with exit code 12 while the first is alive.

    Examples:

    `statecast produce --node-home ~/.near --to gs://bucket/prefix`

    `statecast produce --from dataset:///data/state --to s3://bucket/prefix --shard-id 6 --num-parts 33`

    `statecast produce --node-home ~/.near --to gs://bucket/near --tables gs://bucket/tables`

    `statecast produce --from near://ed25519:KEY@host:24567 --rpc https://… --rpc https://… --to gs://bucket/prefix`
    """
    refuse_tables_without_dataset(dataset, publish.tables)
    chosen_kernel = choose_kernel(run.kernel)
    # What is taken from peers is put by this process alone.
    processes = 1 if given.is_network else run.processes_at_once(beside_node=given.node_home is not None)
    upload_limit = publish.upload_limit_each(processes)
    try:
        if given.is_network:
            found = network.open(given, run, dataset, deltas=publish.deltas is not None, tables=publish.tables is not None)
        else:
            network.refuse_without_network()
            found = given.open(run)
    except EpochNotReadyError as error:
        if not if_missing or given.context is not None or given.selector != LATEST:
            raise
        print_nothing_to_do("not_ready", f"no epoch is ready yet: {error}", as_json)
        return
    with nullcontext() if found.network is None else closing(found.network.hosts):
        work_url = work or default_work_folder(publish.to)
        exported_url = dataset_url(dataset)
        place = RunPlace(
            publish.to,
            work_url,
            exported_url,
            workers=workers_here(run, given.node_home),
            claims=not ignore_claim,
            encoding=publish.encoding,
            tables=publish.tables,
        )
        place = replace(place, write_dataset=writes_dataset(dataset, place, found, publish.tables))
        if plan:
            limit = run.read_limit_each(given.read_limit)
            read_bytes_per_s = None if given.node_home is None or limit is None else float(limit * processes)
            upload_bytes_per_s = None if upload_limit is None else float(upload_limit * processes)
            print_plan(
                found,
                publish,
                PlannedRun(
                    chosen_kernel.name,
                    processes,
                    read_bytes_per_s,
                    upload_bytes_per_s,
                    repair,
                    place.write_dataset,
                    publish.tables is not None,
                ),
                as_json,
            )
            return
        publisher = publish.publisher(found.context, publish.choose_signer(), processes)
        published = publisher.find_published(found.context, publish.num_parts)
        limit = None if given.node_home is None else run.read_limit_each(given.read_limit)
        ladder = publish.ladder(work_url, chosen_kernel, given.node_home, exported_url, limit)
        if published is not None and not repair:
            if ladder is not None:
                # A run that was killed between the manifest and its deltas.
                with closing(open_progress()) as progress, closing(open_executor(run, beside_node=given.node_home is not None)) as executor:
                    ladder.make(StageRunner(executor, progress), publisher, found.context, found.datasets)
            remove_dead_claim(open_store(publish.to), publisher.layout(found.context))
            epoch_url, revision = publisher.epoch_url(found.context), published.revision
            message = f"{epoch_url} is published, manifest revision {revision}; statecast check verifies it"
            print_nothing_to_do("published" if if_missing else True, message, as_json, epoch_url=epoch_url, manifest_revision=revision)
            return
        if not no_preflight:
            require_fit(place, found, given.node_home)
        settings = ProductionSettings.in_folder(
            work_url, exported_url, num_parts=publish.num_parts, write_dataset=place.write_dataset, keep_work=keep_work
        )
        remove_dead_scratch(work_url)
        found = found.sorting_in(scratch_folder(work_url))
        try:
            with (
                closing(open_progress()) as progress,
                claimed(publish.to, found.context, ClaimTerms(ignore=ignore_claim), progress) as claimed_run,
                held_work_folder(work_url, alone=False),
                closing(_executor(run, given, found)) as executor,
            ):
                require_readable(executor, "--from", found.datasets)
                if run.ray_address and not (work or exported_url):
                    progress.note(f"the work folder is {work_url}: every worker of the cluster must see it; --work names another")
                beside = given.beside_node(run)
                progress.note(f"producing from {found.describe()}, {executor.description}, with the {chosen_kernel.name} kernel{beside}")
                runner = StageRunner(executor, progress, claimed_run.keep_going)
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
                    network=found.network,
                    ladder=ladder,
                    before_manifest=claimed_run.confirm,
                ).run()
        except ClaimedError as error:
            if not if_missing:
                raise
            print_nothing_to_do("claimed", str(error), as_json)
            return
        report_file = report or (None if "://" in work_url else Path(work_url) / "report.html")
        if report_file is not None:
            report_file = _written_report(report_file, result, runner, publish)
        peers = () if found.network is None else found.network.hosts.reports()
        if as_json:
            print_json(result_json(result, runner, report_file, peers))
        else:
            print_summary(result, report_file, peers)


def _executor(run: RunOptions, given: InputOptions, found: EpochInput) -> Executor:
    if found.network is not None:
        return network_executor(run, found.network)
    return open_executor(run, beside_node=given.node_home is not None)


def _written_report(report_file: Path, result: EpochResult, runner: StageRunner, publish: PublishOptions) -> Path | None:
    """Write the report; the epoch is published by now, so a report that can't be written is said and is no failure."""
    savings = None
    if publish.deltas is not None:
        try:
            savings = ladder_savings(open_store(publish.to), result.context.chain_id, publish.deltas, runner.progress.note)
        except StoreError as error:
            runner.progress.note(f"what deltas save is left out of the report: {error}")
    try:
        write_report(report_file, result, runner.timings, savings)
    except OSError as error:
        runner.progress.note(f"the report can't be written: {error.strerror or error} [{report_file}]")
        return None
    return report_file


def default_work_folder(to: str, *options: str) -> str:
    """Return a folder that a rerun with the same destination, and the same of some other options, finds again."""
    destination = to if "://" in to else str(Path(to).resolve())
    digest = hashlib.sha256("\0".join((destination, *options)).encode()).hexdigest()
    return f"{cache_folder()}/{digest[:16]}"


def cache_folder() -> str:
    """Return the folder that holds the work folders of runs that name none."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return f"{cache}/statecast"
