"""From ``--from near://…`` to the parts of an epoch that peers of nearcore's network have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from jobs.epoch_input import InputOptions
from jobs.near_listening import NearAddress, NearListen, near_listening
from jobs.options import SOURCE_PANEL, RunOptions
from pipelines.execution.in_threads import ThreadExecutor
from pipelines.execution.machine_limits import machine_cores
from pipelines.near.epoch.rpc_state_header import RpcStateHeaders
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.nearpeer.genesis import KNOWN_GENESIS
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_hosts import AskingPace, HostReport, StateHosts
from pipelines.nearpeer.state_requester import OUTSTANDING_MAX, REQUESTS_PER_S
from pipelines.producing.epoch_input import EpochInput, network_context
from pipelines.producing.network_parts import NetworkParts
from schemas.errors import InvalidInputError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.peer_message import GenesisId


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """How parts are taken from peers."""

    trusted_block: Annotated[
        str | None,
        typer.Option(
            "--trusted-block",
            help="Of --from near://…: hash of the epoch's sync block or of its parent. Then one --rpc is enough.",
            rich_help_panel=SOURCE_PANEL,
        ),
    ] = None
    near_rate: Annotated[
        float,
        typer.Option(
            "--near-rate",
            min=0.01,
            max=1000,
            help="Of --from near://…: most requests a second to each peer; a node answers one a second, all its askers together.",
            rich_help_panel=SOURCE_PANEL,
        ),
    ] = REQUESTS_PER_S
    near_listen: NearListen = None
    near_address: NearAddress = None

    def refuse_without_network(self) -> None:
        """Refuse options that have nothing to say.

        Raises:
            InvalidInputError: one was given.
        """
        if self.trusted_block is not None:
            raise InvalidInputError(problem="--trusted-block is for --from near://…")
        near_listening(self.near_listen, self.near_address, has_peers=False, peers_option="--from")

    def open(self, given: InputOptions, run: RunOptions, dataset: str | None, *, deltas: bool, tables: bool) -> EpochInput:
        """Find the epoch, and make ready to ask the peers, none of which is connected yet.

        Raises:
            InvalidInputError: options that do not fit, or a URL of another form.
            EpochNotReadyError, ContextMismatchError, SourceError, IntegrityError: as `network_context`.
        """
        refused = {
            "--node-home": given.node_home is not None,
            "--dataset": dataset is not None,
            "--deltas": deltas,
            "--tables": tables,
            "--read-limit": given.read_limit is not None,
            "--state-walk": given.state_walk is not StateWalk.AUTO,
            "--ray-address": run.ray_address is not None,
        }
        for option, is_given in refused.items():
            if is_given:
                raise InvalidInputError(problem=f"{option} and --from near://… exclude each other", where=option)
        urls = [PeerUrl.parse(url) for url in given.source or ()]
        listening = near_listening(self.near_listen, self.near_address, has_peers=bool(urls), peers_option="--from")
        contexts = given.rpc.contexts(given.context)
        block = None if self.trusted_block is None else CryptoHash.from_base58(self.trusted_block)
        context, shard_uids = network_context(contexts, given.selector, tuple(given.shard_id or ()), block)
        genesis = GenesisId(context.chain_id, KNOWN_GENESIS.get(context.chain_id, ZERO_HASH))
        parent = decode_block_header(context.block_headers[1], "block header of the sync block's parent")
        hosts = StateHosts(urls, genesis, parent.prev_hash, AskingPace(self.near_rate), listening)
        headers = RpcStateHeaders([endpoint.client for endpoint in contexts.endpoints], context.chain_id)
        return EpochInput(context, shard_uids, None, network=NetworkParts(hosts, headers.verify))


def network_executor(run: RunOptions, network: NetworkParts) -> ThreadExecutor:
    """Return what takes parts: as many at once as peers may be asked for and this machine judges."""
    if run.in_process:
        return ThreadExecutor(1)
    return ThreadExecutor(run.workers or min(2 * machine_cores(), OUTSTANDING_MAX * network.hosts.count))


def peer_json(report: HostReport) -> dict[str, Any]:
    """Return what became of asking a peer as JSON values."""
    announced = report.announced
    return {
        "url": report.url,
        "answers": report.answers,
        "bytes": report.size,
        "problem": report.problem,
        "announced_epoch_height": None if announced is None else announced.epoch_height,
        "announced_shards": None if announced is None else list(announced.shards),
    }


def peer_line(report: HostReport) -> str:
    """Return the same in a line for people."""
    announced = report.announced
    says = "announces nothing" if announced is None else f"announces epoch {announced.epoch_height}, shards {_listed(announced.shards)}"
    gave = f", gave {report.answers:,} headers and parts, {report.size:,} bytes" if report.answers else ""
    return f"{report.url} {says}{gave}" + (f"; {report.problem}" if report.problem else "")


def _listed(shards: tuple[int, ...]) -> str:
    return ", ".join(map(str, shards[:16])) + (", …" if len(shards) > 16 else "")
