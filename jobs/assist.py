"""``statecast assist``: gives a new node on this machine its state, as a peer of nearcore's own network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from jobs.chain_url import locate_chain
from jobs.event_lines import EventLines, Events, opened_events, write_result
from jobs.option_groups import Without
from jobs.options import Json, Plan, PollInterval, ShardIds, TrustOptions, parse_interval_s
from jobs.produce import default_work_folder
from jobs.seed_display import SeedEventDisplay, SeedLineDisplay
from jobs.seed_rebuilding import newest_epochs, open_seeder, plan_epochs
from jobs.terminal import LINE_INTERVAL_S, format_bytes, print_json, say
from pipelines.execution.stop_signals import stopping
from pipelines.nearpeer.genesis import KNOWN_GENESIS
from pipelines.nearpeer.node_key_file import read_or_make_node_key
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.seeding.assist_progress import AssistProgress, AssistStage, assist_progress
from pipelines.seeding.assisted_node import AssistedNode, NodeState, NodeWatch, ask_genesis, read_assisted_node
from pipelines.seeding.data_folder import DataFolder, open_data_folder
from pipelines.seeding.epoch_feed import EpochToSeed
from pipelines.seeding.node_config import add_peers, backup_of, check_config, restore_config
from pipelines.seeding.peer_service import PeerServiceSettings
from pipelines.seeding.seed_plan import ShardToSeed
from pipelines.seeding.seeder import Seeder, SeedSettings, near_key_files
from pipelines.seeding.status import SeedEvent, SeedStatus
from pipelines.stores.open_store import open_store
from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError, PartialResultError, StatecastError
from schemas.ids import CryptoHash

EPOCHS_KEPT: Final = 2
"""The epoch that the node asks for, and the next: it may turn while the node is in the midst of its state."""
GENESIS_INTERVAL_S: Final = 2.0
_NETWORK = "Network"

_LIMITS: Final = RequestLimits(under_way_max=64, per_s_max=10_000, dials_per_asker_per_minute_max=60, private_addresses=True)
"""For a node on this machine, which the limits for strangers would slow down."""


def assist(
    *,
    node_home: Annotated[Path, typer.Option("--node-home", help="Home of the new node: config.json, node_key.json, genesis.json.")],
    source: Annotated[str | None, typer.Option("--from", help="A bucket's folder, or a chain's in it (…/chain_id=…).")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of the command's own for the epoch. Default: one of this node under ~/.cache/statecast."),
    ] = None,
    shard_id: ShardIds = None,
    trust: Annotated[TrustOptions, Without("trusted_block"), Without("trust_threshold")],
    listen: Annotated[
        str,
        typer.Option("--listen", help="Two HOST:PORT with a comma between, which the node reaches.", rich_help_panel=_NETWORK),
    ] = "127.0.0.1:24568,127.0.0.1:24569",
    near_genesis: Annotated[
        str | None,
        typer.Option("--near-genesis", help="The chain's genesis hash. Default: known, or the node's own.", rich_help_panel=_NETWORK),
    ] = None,
    downloads: Annotated[int, typer.Option("--downloads", help="Parts to download at once.", rich_help_panel=_NETWORK)] = 8,
    poll_interval: PollInterval = "30s",
    node_interval: Annotated[
        str, typer.Option("--node-interval", help="Time between two questions to the node's JSON-RPC, e.g. 5s.", metavar="DURATION")
    ] = "5s",
    write_config: Annotated[
        bool,
        typer.Option(
            "--write-config",
            help="Name this peer in the node's config.json while it is assisted, before the node starts; taken out again at the end.",
        ),
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore-config", help="Take out of config.json what a killed run left there, and end.")
    ] = False,
    plan: Plan = False,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Give a new node on this machine its state: bring an epoch of a bucket here, and serve it to the node as one of its peers.

    The node stays a stock neard with state_sync from peers. Ends when the node is at the head of its chain. The node needs other peers
    too, for headers and blocks.

    Example: `statecast assist --node-home ~/.near --from gs://bucket/prefix --trust-key ed25519:… --write-config`
    """
    poll_interval_s, node_interval_s = parse_interval_s(poll_interval), parse_interval_s(node_interval, "--node-interval")
    node = read_assisted_node(node_home.expanduser().absolute())
    folder = Path(default_work_folder(str(node.home), "assist")) if data is None else data
    if restore:
        _restore(node, folder, as_json)
        return
    if source is None:
        raise InvalidInputError(problem="nothing says where the epoch is published", remedy="Give --from.")
    if not trust.insecure and not trust.trust_key:
        raise InvalidInputError(
            problem="nothing says whose manifests to believe",
            remedy="Give publishers' keys (--trust-key); --insecure gives the node whatever the bucket has.",
        )
    root, chain_id, layout = locate_chain(source, node.chain_id)
    if layout is not None:
        raise InvalidInputError(problem="a node asks for its chain's newest epoch, so --from names no epoch", where="--from")
    addresses = tuple(parse_address(text, "--listen", any_port=True) for text in listen.split(","))
    if len(addresses) not in (1, EPOCHS_KEPT):
        raise InvalidInputError(problem=f"--listen takes {EPOCHS_KEPT} addresses, or one", where=listen)
    if write_config:
        check_config(node.config_file)
    store, policy = open_store(root), trust.policy()
    shards = tuple(dict.fromkeys(shard_id or node.shard_ids))
    genesis = KNOWN_GENESIS.get(chain_id) if near_genesis is None else CryptoHash.from_base58(near_genesis)
    if plan:
        newest = newest_epochs(store, chain_id, policy, 1)[0]
        planned = plan_epochs(store, DataFolder(folder.absolute()), policy, [newest], shards, lambda problem: say(f"warning: {problem}"))
        _print_plan(node, newest, planned, shards, folder, addresses, write_config=write_config, as_json=as_json)
        return
    with opened_events(events, as_json=as_json) as lines:
        with ExitStack() as stack:
            held = stack.enter_context(open_data_folder(folder))
            watch = NodeWatch(node, node_interval_s)
            stack.callback(watch.close)
            display = _Display(lines)
            stopped = threading.Event()
            with stopping(lambda _name: stopped.set(), ends_well=False):
                display.event(
                    SeedEvent(
                        "node_found", f"{node.peer_id} at {node.address}, chain {chain_id}", {"node": str(node.url), "chain_id": chain_id}
                    )
                )
                for warning in node.warnings:
                    display.event(SeedEvent("node_warning", warning, {"problem": warning}))
                if genesis is None:
                    genesis = _learn_genesis(node, watch, stopped, display)
            if genesis is None:
                raise PartialResultError(problem="the node has not started", remedy="Run again to go on.")
            settings = SeedSettings(
                chain_id=chain_id,
                epochs=EPOCHS_KEPT,
                trust=policy,
                session=None,
                shard_ids=shards,
                downloads=downloads,
                poll_interval_s=poll_interval_s,
                near=PeerServiceSettings(genesis, addresses, (node.url,), limits=_only_for(node)),
                newest_alone_at_first=True,
            )
            seeder = open_seeder(stack, store, held, settings, display.event, stopped, ends_well=False)
            run = _Run(node, watch, seeder, display)
            display.event(SeedEvent("near_listening", " and ".join(seeder.near_urls()), {"urls": seeder.near_urls()}))
            if write_config:
                stack.callback(run.take_out)
                run.put_in()
            status = seeder.run(run.status)
            progress, state = run.look(status)
        if progress.stage is not AssistStage.AT_HEAD:
            raise PartialResultError(problem=f"the node is not at the head: {progress.words}", remedy="Run again to go on.")
        document = {"message_type": "summary", **_progress_facts(progress, state), **status.to_json()}
        write_result(document, lines, as_json=as_json)


class _Display:
    """Lines of what happens; for programs every event and the status too."""

    def __init__(self, events: EventLines | None) -> None:
        self._events = None if events is None else SeedEventDisplay(events, None)
        self._lines = None if events is not None and events.on_standard_output else SeedLineDisplay()

    def event(self, event: SeedEvent) -> None:
        """Show something that happened; called from several threads."""
        if self._events is not None:
            self._events.event(event)
        if self._lines is not None and event.kind != "near_peer":
            # Each answer is one; the progress counts them.
            self._lines.event(event)

    def status(self, status: SeedStatus) -> None:
        """Show how it stands."""
        if self._events is not None:
            self._events.status(status)


class _Run:
    """The node, looked at while its epoch is brought and served."""

    def __init__(self, node: AssistedNode, watch: NodeWatch, seeder: Seeder, display: _Display) -> None:
        self._node, self._watch, self._seeder, self._display = node, watch, seeder, display
        self._told: AssistProgress | None = None
        self._told_at_s = 0.0

    def look(self, status: SeedStatus) -> tuple[AssistProgress, NodeState | None]:
        """Return how far the node is, and its last answer."""
        state = self._watch.look()
        return assist_progress(status, state), state

    def status(self, status: SeedStatus) -> None:
        """Tell how far the node is, a new step at once; stop when it is at the head."""
        progress, state = self.look(status)
        now_s = time.monotonic()
        is_new = self._told is None or self._told.stage is not progress.stage
        if is_new or (self._told != progress and now_s - self._told_at_s >= LINE_INTERVAL_S):
            self._told, self._told_at_s = progress, now_s
            self._display.event(SeedEvent("node_progress", progress.words, _progress_facts(progress, state)))
        self._display.status(status)
        if progress.stage is AssistStage.AT_HEAD:
            self._seeder.stop()

    def put_in(self) -> None:
        """Name this peer in the node's config.json."""
        file = self._node.config_file
        if add_peers(file, self._seeder.near_urls(), str(self._node.address)):
            words = f"{file}, its backup is {backup_of(file).name}; a node that runs already is to be started again"
            self._display.event(SeedEvent("node_config_changed", words, {"where": str(file), "backup": str(backup_of(file))}))

    def take_out(self) -> None:
        """Take this peer out of the node's config.json."""
        file = self._node.config_file
        if restore_config(file, [url.peer_id for url in self._seeder.near_peers()], str(self._node.address)):
            self._display.event(SeedEvent("node_config_restored", str(file), {"where": str(file)}))


def _only_for(node: AssistedNode) -> RequestLimits:
    """Return limits under which the node alone is answered: it tells the whole network of this peer, which is not there for others."""
    return replace(_LIMITS, askers=frozenset([node.peer_id]))


def _learn_genesis(node: AssistedNode, watch: NodeWatch, stopped: threading.Event, display: _Display) -> CryptoHash | None:
    """Wait for the node, and return the genesis hash that it names; None where the command is to stop before."""
    told = False
    while not stopped.is_set():
        state = watch.look()
        if state is not None and state.genesis_hash is not None:
            return state.genesis_hash
        try:
            return asyncio.run(ask_genesis(node))
        except StatecastError as error:
            if not told:
                words = f"waiting for the node, which knows the genesis hash of {node.chain_id}: {error.problem}"
                display.event(SeedEvent("node_awaited", words, {"problem": error.problem}))
                told = True
        stopped.wait(GENESIS_INTERVAL_S)
    return None


def _progress_facts(progress: AssistProgress, state: NodeState | None) -> dict[str, Any]:
    return {
        "stage": str(progress.stage),
        "progress": progress.words,
        "node_block_height": None if state is None else state.block_height,
        "node_is_syncing": None if state is None else state.is_syncing,
    }


def _restore(node: AssistedNode, folder: Path, as_json: bool) -> None:
    files = near_key_files(DataFolder(folder.absolute()), EPOCHS_KEPT)
    keys = [read_or_make_node_key(file) for file in files if file.exists()]
    restored = restore_config(node.config_file, [key.peer_id for key in keys], str(node.address))
    if as_json:
        print_json({"message_type": "summary", "restored": restored, "where": str(node.config_file)})
    else:
        say(f"{node.config_file}: restored" if restored else f"{node.config_file}: nothing was added")


def _print_plan(
    node: AssistedNode,
    epoch: EpochToSeed,
    planned: Sequence[ShardToSeed],
    shard_ids: tuple[int, ...],
    folder: Path,
    addresses: tuple[Address, ...],
    *,
    write_config: bool,
    as_json: bool,
) -> None:
    manifest = epoch.manifest
    shards = [shard for shard in manifest.shards if not shard_ids or shard.shard_id in shard_ids]
    watch = NodeWatch(node, 0.0)
    state = watch.look()
    watch.close()
    problems = [f"shard {shard.shard_id} is published without a state header: it can't be served" for shard in shards if not shard.header]
    problems += [f"shard {number} is not published" for number in shard_ids if manifest.shard(number) is None]
    if not manifest.block_headers:
        problems.append("the manifest has no block headers: the node can't be told of the epoch")
    document = {
        "message_type": "summary",
        "plan": True,
        "node": str(node.url),
        "chain_id": node.chain_id,
        "node_block_height": None if state is None else state.block_height,
        "node_is_syncing": None if state is None else state.is_syncing,
        "epoch_height": manifest.epoch_height,
        "epoch_id": str(manifest.epoch_id),
        "sync_hash": str(manifest.sync_hash),
        "shards": [shard.shard_id for shard in shards],
        "parts": sum(shard.num_parts for shard in shards),
        "bytes": sum(part.size for shard in shards for part in shard.parts),
        "bytes_to_fetch": sum(one.bringing.size for one in planned),
        "bringing": [one.to_json() for one in planned],
        "data": str(folder),
        "listen": [str(address) for address in addresses],
        "config_changes": [f"{node.config_file}: network.boot_nodes, network.experimental.tier3_public_addr"] if write_config else [],
        "warnings": [*node.warnings, *problems],
    }
    if as_json:
        print_json(document)
        return
    answer = "does not answer now" if state is None else f"is at block {state.block_height}" + (", syncing" if state.is_syncing else "")
    say(f"node: {node.peer_id} at {node.address}, chain {node.chain_id}; it {answer}")
    numbers = ", ".join(str(shard.shard_id) for shard in shards)
    say(f"epoch: {manifest.epoch_height}, sync hash {manifest.sync_hash}, shards {numbers}")
    say(f"brought to {folder}: {document['parts']} parts, {format_bytes(float(str(document['bytes'])))}")
    rebuilt = [one for one in planned if one.bringing.way is not None]
    say(
        f"to be moved: {format_bytes(float(str(document['bytes_to_fetch'])))}, {len(rebuilt)} shards rebuilt out of an older epoch here and deltas"
    )
    say(f"served on: {', '.join(map(str, addresses))}, to this node alone")
    for change in document["config_changes"] if isinstance(document["config_changes"], list) else ():
        say(f"would change {change}")
    for warning in (*node.warnings, *problems):
        say(f"warning: {warning}")
