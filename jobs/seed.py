"""``statecast seed``: keeps a bucket's newest epochs available over BitTorrent."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import structlog
import typer

from jobs.event_lines import EventLines, Events, fail, opened_events, write_result
from jobs.option_groups import Without
from jobs.options import Json, Plan, PollInterval, PublishedShardIds, TrustOptions, parse_interval_s, parse_rate
from jobs.seed_display import open_seed_display
from jobs.seed_rebuilding import newest_epochs, open_seeder, plan_epochs
from jobs.terminal import format_bytes, open_console, open_table, print_json
from pipelines.bittorrent.session import SessionSettings
from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.execution.status_server import Health, status_server
from pipelines.nearpeer.genesis import KNOWN_GENESIS
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.seeding.data_folder import DataFolder, open_data_folder
from pipelines.seeding.epoch_feed import find_chain
from pipelines.seeding.peer_service import PeerServiceSettings
from pipelines.seeding.seed_metrics import STUCK_S, SeedMetrics
from pipelines.seeding.seed_plan import ShardToSeed
from pipelines.seeding.seeder import Seeder, SeedSettings
from pipelines.seeding.status import SeedEvent, SeedStatus
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError, PartialResultError
from schemas.ids import CryptoHash
from schemas.published.object_layout import split_chain_url
from schemas.shown_text import shown_url

_NETWORK = "Network"
_NEAR = "nearcore's own network"

KEYS_MAX = 2
"""Addresses in nearcore's network, each with a key of its own."""


def seed(
    *,
    url: Annotated[str, typer.Argument(help="A bucket's folder, or a chain's in it (…/chain_id=…).")],
    data: Annotated[Path, typer.Option("--data", help="A folder of the seeder's own. Old epochs in it are deleted.")],
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="How many of the newest epochs to keep.")] = 2,
    chain_id: Annotated[str | None, typer.Option("--chain-id", help="The chain, where the URL does not name it.")] = None,
    shard_id: PublishedShardIds = None,
    local: Annotated[
        Path | None,
        typer.Option("--local", help="A folder that has epochs already (what produce wrote): whole shards in it are seeded in place."),
    ] = None,
    trust: Annotated[TrustOptions, Without("trusted_block"), Without("trust_threshold")],
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT for BitTorrent peers, TCP and UDP.", rich_help_panel=_NETWORK)
    ] = "0.0.0.0:6881",
    peer: Annotated[
        list[str] | None, typer.Option("--peer", help="HOST:PORT of a peer to call; may be repeated.", rich_help_panel=_NETWORK)
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option("--tracker", help="A tracker to announce to, besides the manifest's; may be repeated.", rich_help_panel=_NETWORK),
    ] = None,
    upload_limit: Annotated[
        str | None,
        typer.Option("--upload-limit", help="Most bytes a second to all peers, e.g. 200MB/s. Default: none.", rich_help_panel=_NETWORK),
    ] = None,
    download_limit: Annotated[
        str | None,
        typer.Option("--download-limit", help="Most bytes of parts a second from the bucket. Default: none.", rich_help_panel=_NETWORK),
    ] = None,
    connections: Annotated[int, typer.Option("--connections", help="Most peers at once.", rich_help_panel=_NETWORK)] = 200,
    downloads: Annotated[int, typer.Option("--downloads", help="Parts to download at once.", rich_help_panel=_NETWORK)] = 4,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild/--no-rebuild",
            help="Where deltas from an older epoch in the data folder are fewer bytes than whole parts, rebuild the parts here and compare.",
            rich_help_panel=_NETWORK,
        ),
    ] = True,
    near_listen: Annotated[
        str | None,
        typer.Option(
            "--near-listen",
            help="HOST:PORT, or two with a comma between, on which nearcore's own nodes find the epochs too; with two, the newest epoch "
            "and the one before stay found at once. Default: none.",
            rich_help_panel=_NEAR,
        ),
    ] = None,
    near_peer: Annotated[
        list[str] | None,
        typer.Option(
            "--near-peer", help="near://ed25519:KEY@host:port of a node to stay connected to; may be repeated.", rich_help_panel=_NEAR
        ),
    ] = None,
    near_upload_limit: Annotated[
        str | None,
        typer.Option(
            "--near-upload-limit", help="Most bytes a second to one of nearcore's nodes, e.g. 20MB/s. Default: none.", rich_help_panel=_NEAR
        ),
    ] = None,
    near_genesis: Annotated[
        str | None,
        typer.Option(
            "--near-genesis",
            help="The chain's genesis hash. Known of mainnet and testnet; `statecast inspect near://…` shows it of others.",
            rich_help_panel=_NEAR,
        ),
    ] = None,
    near_private: Annotated[
        bool,
        typer.Option("--near-private", help="Also answer nodes at loopback and private addresses by a dial back.", rich_help_panel=_NEAR),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", help="HOST:PORT for /healthz and /metrics, e.g. 127.0.0.1:9464. Default: none.", rich_help_panel=_NETWORK
        ),
    ] = None,
    poll_interval: PollInterval = "60s",
    lease: Annotated[
        bool, typer.Option("--lease/--no-lease", help="Tell a bucket that can be written that parts are being brought, so that gc waits.")
    ] = True,
    once: Annotated[bool, typer.Option("--once", help="End as soon as everything is here and verified.")] = False,
    plan: Plan = False,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Seed the newest epochs of a bucket over BitTorrent until SIGTERM, SIGINT or SIGHUP.

    Parts come from the bucket and get their names when their digests are right. The epoch before stays until the new one is here.
    A restart goes on where it was. The bucket may be away for a while. Where the bucket has deltas from an older epoch that is here, and they
    are fewer bytes than whole parts, the parts are rebuilt of that; what can't be comes whole.

    Example: `statecast seed gs://bucket/prefix --epochs 2 --data /data/seed --upload-limit 200MB/s --trust-key ed25519:…`
    """
    root, named = _split_chain(url)
    store = open_store(root)
    if not trust.insecure and not trust.trust_key:
        raise InvalidInputError(
            problem="nothing says whose manifests to believe",
            remedy="Give publishers' keys (--trust-key); --insecure seeds whatever the bucket has.",
        )
    policy = trust.policy()
    session = SessionSettings(
        listen=parse_address(listen, "--listen", every_host=True, any_port=True),
        upload_bytes_per_s=None if upload_limit is None else parse_rate(upload_limit, "--upload-limit"),
        connections_max=connections,
    )
    peers = tuple(parse_address(text, "--peer") for text in dict.fromkeys(peer or ()))
    near_addresses = tuple(
        parse_address(text, "--near-listen", every_host=True, any_port=True) for text in (near_listen.split(",") if near_listen else ())
    )
    near_rate = None if near_upload_limit is None else parse_rate(near_upload_limit, "--near-upload-limit")
    near_peers = tuple(PeerUrl.parse(text) for text in dict.fromkeys(near_peer or ()))
    metrics_address = None if metrics is None else parse_address(metrics, "--metrics", every_host=True, any_port=True)
    download_bytes_per_s = None if download_limit is None else parse_rate(download_limit, "--download-limit")
    poll_interval_s = parse_interval_s(poll_interval)
    if plan:
        folder = DataFolder(data.absolute())
        chain = chain_id or named or _only_chain(store, folder)
        newest = newest_epochs(store, chain, policy, epochs)
        warn = structlog.get_logger().warning
        _print_plan(plan_epochs(store, folder, policy, newest, shard_id or (), warn, local, rebuild=rebuild), as_json)
        return
    with ExitStack() as stack:
        lines = stack.enter_context(opened_events(events, as_json=as_json))
        folder = stack.enter_context(open_data_folder(data))
        chain = chain_id or named or _only_chain(store, folder)
        near = _near_settings(chain, near_addresses, near_peers, near_genesis, near_private, session.upload_bytes_per_s)
        if near is None and near_rate is not None:
            raise InvalidInputError(problem="--near-upload-limit needs --near-listen")
        settings = SeedSettings(
            chain_id=chain,
            epochs=epochs,
            trust=policy,
            session=session,
            shard_ids=tuple(dict.fromkeys(shard_id or ())),
            local=None if local is None else local.absolute(),
            peers=peers,
            trackers=tuple(dict.fromkeys(tracker or ())),
            downloads=downloads,
            download_bytes_per_s=download_bytes_per_s,
            poll_interval_s=poll_interval_s,
            near=near if near is None else replace(near, upload_bytes_per_s_each=near_rate),
            hold_lease=lease,
        )
        display = open_seed_display(lines)
        stack.callback(display.close)
        seeder = open_seeder(stack, store, folder, settings, display.event, threading.Event(), rebuild=rebuild)
        metrics_port = None
        if metrics_address is not None:
            metrics_port = stack.enter_context(
                status_server(metrics_address, SeedMetrics(lambda: seeder.latest_status), lambda: _health(seeder))
            )
        port = seeder.latest_status.listen_port
        facts = {"port": port, "metrics_port": metrics_port, "trust": policy.description}
        display.event(SeedEvent("listening", f"port {port}, believing {policy.description}", facts))
        if (peer_status := seeder.latest_status.near_peer) is not None:
            display.event(
                SeedEvent(
                    "near_listening", " and ".join(seeder.near_urls()), {"ports": list(peer_status.ports), "urls": seeder.near_urls()}
                )
            )
        status = seeder.run(display.status, once=once)
        if not once:
            display.event(SeedEvent("stopped", "what is here stays, and is seeded by the same command again", {}))
        _finish(status, once, lines, as_json)


def _print_plan(planned: list[ShardToSeed], as_json: bool) -> None:
    size = sum(one.bringing.size for one in planned)
    if as_json:
        print_json({"message_type": "plan", "shards": [one.to_json() for one in planned], "bytes": size})
        return
    table = open_table(("epoch", "shard", "parts", "here", "bytes", "how"), left=("how",), title=f"would bring {format_bytes(size)}")
    for one in planned:
        way, missing = one.bringing.way, len(one.bringing.missing)
        how = "" if not missing else "whole parts" if way is None else f"rebuilt out of {deltas_in_words(len(way.steps))}"
        row = (str(one.key.epoch_height), str(one.key.shard_id), f"{one.parts:,}", f"{one.parts - missing:,}")
        table.add_row(*row, format_bytes(one.bringing.size), how)
    open_console().print(table)


def _near_settings(
    chain_id: str,
    listen: tuple[Address, ...],
    peers: tuple[PeerUrl, ...],
    genesis: str | None,
    private: bool,
    upload_bytes_per_s: int | None,
) -> PeerServiceSettings | None:
    if not listen:
        if peers or genesis or private:
            raise InvalidInputError(problem="--near-peer, --near-genesis and --near-private need --near-listen")
        return None
    if len(listen) > KEYS_MAX:
        raise InvalidInputError(problem=f"--near-listen takes at most {KEYS_MAX} addresses", where=", ".join(map(str, listen)))
    genesis_hash = KNOWN_GENESIS.get(chain_id) if genesis is None else CryptoHash.from_base58(genesis)
    if genesis_hash is None:
        raise InvalidInputError(
            problem=f"the genesis hash of {chain_id} is not known, and nodes of the chain ask for it",
            remedy="Give --near-genesis; `statecast inspect near://ed25519:KEY@host:port` of one of its nodes shows it.",
        )
    return PeerServiceSettings(genesis_hash, listen, peers, upload_bytes_per_s, limits=RequestLimits(private_addresses=private))


def _health(seeder: Seeder) -> Health:
    return Health("stuck" if seeder.seconds_since_served() > STUCK_S else "", seeder.latest_status.to_json())


def _finish(status: SeedStatus, once: bool, events: EventLines | None, as_json: bool) -> None:
    document = {"message_type": "summary", **status.to_json()}
    if once and not status.is_complete:
        problems = [status.poll_problem, *(shard.problem for shard in status.shards)]
        failure = PartialResultError(
            problem=next((problem for problem in problems if problem), "no epoch with a torrent is published"),
            remedy="Run again to go on.",
        )
        fail(failure, events, facts=document, as_json=as_json)
    write_result(document, events, as_json=as_json)


def _split_chain(url: str) -> tuple[str, str | None]:
    """Return the store's URL and the chain that a URL names, if it names one."""
    root, tail = split_chain_url(url)
    if "/" in tail:
        raise InvalidInputError(
            problem="a seeder follows a chain, not one epoch", where=shown_url(url), remedy="End the URL at the chain or before it."
        )
    return root, tail.removeprefix("chain_id=") if tail else None


def _only_chain(store: Store, folder: DataFolder) -> str:
    """Return the chain that was seeded before, so that the bucket may be away; at first, the only one that the bucket has."""
    held = {layout.chain_id for layout in folder.epochs()}
    return held.pop() if len(held) == 1 else find_chain(store)
