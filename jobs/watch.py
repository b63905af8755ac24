"""``statecast watch``: publishes every epoch of a node, as soon as its state snapshot is complete."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Annotated

import typer

from jobs.dataset_option import NO_DATASET, refuse_tables_without_dataset, writes_dataset
from jobs.event_lines import STANDARD_OUTPUT, Events, opened_events, write_result
from jobs.option_groups import Without
from jobs.options import (
    IgnoreClaim,
    Json,
    NodeHome,
    ReadLimit,
    RpcOptions,
    RunOptions,
    ShardIds,
    StateWalkOption,
    node_home_folder,
    open_executor,
    parse_duration_s,
    parse_interval_s,
)
from jobs.preflight import NoPreflight, require_fit, require_room, workers_here
from jobs.produce import default_work_folder
from jobs.publish_options import PublishOptions
from jobs.watch_log import LogFormat, WatchLog
from pipelines.execution.status_server import Health, status_server
from pipelines.execution.stop_signals import stopping
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.read_limit import give_node_the_disk
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.producing.claimed_production import ClaimTerms
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.look import RunPlace
from pipelines.producing.produce_epoch import ProductionSettings
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.producing.watch.watch_node import Watcher, WatchSettings
from pipelines.producing.watch.watch_production import WatchProduction
from pipelines.stores.held_work_folder import held_work_folder
from pipelines.stores.open_store import open_store
from schemas.address import parse_address
from schemas.errors import InvalidInputError, TransientStoreError
from schemas.published.manifest import check_urls
from schemas.published.object_layout import chain_folder

_WATCH = "How it watches"


def watch(
    *,
    publish: Annotated[PublishOptions, Without("num_parts")],
    node_home: NodeHome = None,
    shard_id: ShardIds = None,
    poll_interval: Annotated[
        str, typer.Option("--poll-interval", help="Time between two looks at the node.", metavar="DURATION", rich_help_panel=_WATCH)
    ] = "10s",
    poll: Annotated[str | None, typer.Option("--poll", help="Its name of before.", hidden=True)] = None,
    deadline: Annotated[
        str, typer.Option("--deadline", help="An epoch not published so long after it was seen is given up.", rich_help_panel=_WATCH)
    ] = "30m",
    keep_epochs: Annotated[
        int | None,
        typer.Option(
            "--keep-epochs", min=1, help="After each epoch, delete all but so many, as statecast gc does.", rich_help_panel=_WATCH
        ),
    ] = None,
    keep_tables: Annotated[
        int | None,
        typer.Option(
            "--keep-tables",
            min=1,
            help="With --tables: after each epoch, delete all tables but those of so many epochs, as statecast gc --tables does. Default: tables stay.",
            rich_help_panel=_WATCH,
            show_default=False,
        ),
    ] = None,
    claim_ttl: Annotated[
        str,
        typer.Option("--claim-ttl", help="How long a claim outlives a producer that is gone: 1s to 1h.", rich_help_panel=_WATCH),
    ] = "10m",
    ignore_claim: IgnoreClaim = False,
    health_port: Annotated[
        int | None,
        typer.Option(
            "--health-port", min=0, max=65535, help="Port for /healthz, /readyz and /metrics. Default: none.", rich_help_panel=_WATCH
        ),
    ] = None,
    health_address: Annotated[
        str, typer.Option("--health-address", help="Address that the port is opened on.", rich_help_panel=_WATCH)
    ] = "127.0.0.1",
    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", help="text on standard error; json is the same as --events -.", rich_help_panel=_WATCH),
    ] = LogFormat.TEXT,
    rpc: RpcOptions,
    read_limit: ReadLimit = None,
    state_walk: StateWalkOption = StateWalk.AUTO,
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            help="Folder or bucket for what stages leave each other, and for the watcher's memory; no other process may work there. "
            "Default: a folder of this node, destination and these shards under ~/.cache/statecast.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="none",
            help="none: write no dataset; each part is read from the node, which is read twice, and its snapshot is needed until the last part "
            "is out. Default: a dataset in the work folder, removed in the end; none where its disk would not hold it.",
        ),
    ] = None,
    events: Events = None,
    run: RunOptions,
    no_preflight: NoPreflight = False,
    as_json: Json = False,
) -> None:
    """Publish every epoch of a node from now on, each once, as soon as its state snapshot is complete.

    Runs until SIGTERM, SIGINT or SIGHUP, which end it within 20 seconds with exit code 0; a second one ends it at once. It may be killed and
    started again at any moment, and so may the node. A second watcher of the same bucket waits, and takes over when the first is gone.

    Example: `statecast watch --node-home ~/.near --to gs://bucket/prefix --deadline 30m --keep-epochs 5 --health-port 9464`
    """
    if node_home is None:
        raise InvalidInputError(problem="name the node to watch", remedy="Give --node-home HOME.")
    refuse_tables_without_dataset(dataset, publish.tables)
    if keep_tables is not None and publish.tables is None:
        raise InvalidInputError(problem="there are no tables to keep", where="--keep-tables", remedy="Say with --tables where they are.")
    if dataset not in (None, NO_DATASET):
        raise InvalidInputError(problem="a watcher keeps no dataset", where=f"--dataset {dataset}", remedy="Give none, or leave it out.")
    settings = WatchSettings(
        poll_s=parse_interval_s(poll_interval) if poll is None else parse_interval_s(poll, "--poll"),
        deadline_s=parse_duration_s(deadline, "--deadline"),
        claim_ttl_s=parse_duration_s(claim_ttl, "--claim-ttl"),
    )
    terms = ClaimTerms(settings.claim_ttl_s, ignore_claim)
    limit = run.read_limit_each(read_limit)
    publish.upload_limit_each(run.processes_beside_node)
    give_node_the_disk()
    address = None
    if health_port is not None:
        host = f"[{health_address}]" if ":" in health_address else health_address
        address = parse_address(f"{host}:{health_port}", "--health-address", every_host=True, any_port=True)
    signer = publish.choose_signer()
    check_urls(web_seeds=tuple(publish.web_seed or ()), trackers=tuple(publish.tracker or ()))
    home = node_home_folder(node_home).resolve()
    contexts = rpc.contexts()
    # A watcher works alone in its folder: the default is neither a producer's nor that of a watcher of another node or other shards.
    work_url = work or default_work_folder(publish.to, "watch", str(home), *map(str, sorted(set(shard_id or ()))))
    metrics, stop = WatchMetrics(), threading.Event()
    place = RunPlace(
        publish.to,
        work_url,
        None,
        workers=workers_here(run, home),
        claims=not ignore_claim,
        encoding=publish.encoding,
        tables=publish.tables,
    )

    def look(epoch: EpochInput) -> None:
        # What was room for one epoch may be none for the next, which is larger and finds a fuller disk.
        if not no_preflight:
            require_room(replace(place, write_dataset=writes_dataset(dataset, place, epoch, publish.tables)), epoch, home)

    production = WatchProduction(
        node_home=str(home),
        context_of=lambda selector: contexts.find_in_node(home, selector),
        shard_ids=tuple(shard_id or ()),
        state_walk=state_walk,
        read_limit_bytes_per_s=limit,
        kernel=choose_kernel(run.kernel),
        publisher_for=lambda context: publish.publisher(context, signer, run.processes_beside_node),
        store_url=publish.to,
        settings=ProductionSettings.in_folder(work_url),
        writes_dataset=lambda found: writes_dataset(dataset, place, found, publish.tables),
        open_executor=lambda: open_executor(run, beside_node=True),
        terms=terms,
        keep_epochs=keep_epochs,
        tables_url=publish.tables,
        keep_tables=keep_tables,
        before_production=look,
        ladder=publish.ladder(work_url, choose_kernel(run.kernel), home, None, limit),
    )
    with ExitStack() as stack:
        target = STANDARD_OUTPUT if log_format is LogFormat.JSON else events
        lines = stack.enter_context(opened_events(target, as_json=as_json))
        log = WatchLog(lines)
        watcher = Watcher(production, open_store(work_url), settings, metrics, log.event, log.progress, stop)

        def stop_watcher(name: str) -> None:
            stop.set()
            watcher.wake()
            log.event("stopping", f"{name}: stopping", {"signal": name})

        stack.enter_context(stopping(stop_watcher, lambda: log.event("stopped", "stopped; what was under way is left as it is", {})))
        _check_store(publish.to)
        if not no_preflight:
            # A transient fault is left to the first epoch, and so is its size.
            with suppress(TransientStoreError):
                require_fit(place, None, home)
        with held_work_folder(work_url, alone=True), ExitStack() as served:
            facts: dict[str, object] = {"node_home": production.node_home, "to": open_store(publish.to).url}
            if address is not None:
                facts["health_port"] = served.enter_context(
                    status_server(
                        address,
                        metrics,
                        lambda: Health("stuck" if watcher.stuck else "", metrics.to_json()),
                        lambda: Health(watcher.problem, metrics.to_json()),
                    )
                )
            beside = run.neighbour_note(read_limit)
            log.event("watching", f"watching {production.node_home}, publishing to {facts['to']}; {beside}", facts)
            watcher.run()
        log.event("stopped", "stopped", {})
        write_result({"message_type": "summary", **metrics.to_json()}, lines, as_json=as_json)


def _check_store(url: str) -> None:
    """Read something of the store, so that a bucket that is not there or is denied shows before the first epoch does.

    Raises:
        StoreError: the store refuses; a transient fault is left to the first epoch.
    """
    try:
        next(open_store(url).list(chain_folder("mainnet")), None)
    except TransientStoreError:
        return
