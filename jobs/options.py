"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from pipelines.execution.executor import Executor
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.machine_limits import machine_cores
from pipelines.execution.ray_head import ADDRESS_VARIABLE
from pipelines.execution.small_work_first import SMALL_WORK_S, SmallWorkFirst
from pipelines.near.epoch.epoch_context_finder import EpochContextFinder
from pipelines.near.epoch.given_context import read_context_file
from pipelines.near.epoch.rpc_client import REQUESTS_PER_S, RpcClient, RpcLimits
from pipelines.near.epoch.rpc_context import RpcContextSource
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash
from schemas.published.public_key import PublicKey

SOURCE_PANEL = "Where records come from"
_EPOCH = "Which epoch"
_RUN = "How it runs"
_TRUST = "Whom to believe"

NODE_READ_LIMIT = "200MB"
"""What is read a second from a node's disk at most, where nothing else is said: a part of what such a disk gives."""

NO_LIMIT = "none"

NodeHome = Annotated[
    Path | None,
    typer.Option("--node-home", help="Home of a NEAR node (config.json, data/). Opened read-only.", rich_help_panel=SOURCE_PANEL),
]
ContextFile = Annotated[
    Path | None,
    typer.Option("--context", help="JSON file with the epoch context, where the node's database does not have it.", rich_help_panel=_EPOCH),
]
Epoch = Annotated[
    str | None,
    typer.Option("--epoch", help="latest, an epoch height, or an epoch id. Default: latest.", rich_help_panel=_EPOCH, show_default=False),
]
EpochId = Annotated[str | None, typer.Option("--epoch-id", help="An epoch id; the same as --epoch ID.", rich_help_panel=_EPOCH)]
ShardIds = Annotated[
    list[int] | None,
    typer.Option(
        "--shard-id",
        help="A shard to work on; may be repeated. Default: all that the source has; of a node, all that it tracks.",
        rich_help_panel=_EPOCH,
        show_default=False,
    ),
]
PublishedShardIds = Annotated[
    list[int] | None,
    typer.Option(
        "--shard-id",
        help="A shard to work on; may be repeated. Default: all that the epoch's manifest lists.",
        rich_help_panel=_EPOCH,
        show_default=False,
    ),
]
ReadLimit = Annotated[
    str | None,
    typer.Option(
        "--read-limit",
        help="Most bytes a second to read from the node's disk, all workers together, e.g. 500MB; none for no limit. "
        f"Default: {NODE_READ_LIMIT}.",
        rich_help_panel=SOURCE_PANEL,
    ),
]
KernelName = Annotated[
    str, typer.Option("--kernel", help="auto, native (the Rust wheel) or reference (pure Python, slow).", rich_help_panel=_RUN)
]
RayPatience = Annotated[
    float | None,
    typer.Option(
        "--ray-patience",
        # Here and not at the field: a function that stands in a class's annotations does not see this module.
        parser=lambda text: parse_duration_s(text, "--ray-patience"),
        metavar="DURATION",
        help="How long to wait for a machine that can run the tasks before the run ends, e.g. 2h. Default: 10m.",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
StateWalkOption = Annotated[
    StateWalk,
    typer.Option(
        "--state-walk",
        help="Walk the node's State column at the state root: auto (where flat state can't be brought to it), always or never.",
        rich_help_panel=SOURCE_PANEL,
    ),
]
IgnoreClaim = Annotated[
    bool,
    typer.Option(
        "--ignore-claim", help="Produce also while another producer holds the epoch: twice the work, the same bytes.", rich_help_panel=_RUN
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]
Plan = Annotated[bool, typer.Option("--plan", help="Say what would be done and do nothing.")]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_byte_count(text: str, option: str) -> int:
    """Parse a number of bytes such as ``200MB``, ``64MiB`` or ``1000``; a trailing ``/s`` is allowed.

    Raises:
        InvalidInputError: another form, or zero.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmg]i?)?b?(?:/s)?", text.strip().lower())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size <= 0:
        raise InvalidInputError(problem=f"{text!r} is not a number of bytes", where=option, remedy="Write 200MB, 64MiB or 1000.")
    return size


RATE_BYTES_MIN = 1000
"""Least bytes a second that may be meant: below, a unit was forgotten."""

UNITLESS_RATE_BYTES_MIN = 10**6
"""Least bytes a second that may be meant by a number without a unit."""


def parse_rate(text: str, option: str) -> int:
    """Parse bytes a second, in the form of `parse_byte_count`.

    Raises:
        InvalidInputError: another form, or too little to be meant: 200 in the place of 200MB.
    """
    rate = parse_byte_count(text, option)
    if rate < RATE_BYTES_MIN or (rate < UNITLESS_RATE_BYTES_MIN and text.strip().replace(".", "").isdecimal()):
        raise InvalidInputError(
            problem=f"{text.strip()!r} is {rate:,} bytes a second, too few to be meant",
            where=option,
            remedy=f"Write a unit, as in {rate}MB.",
        )
    return rate


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

EPOCH_HEIGHT_DIGITS_MAX = 20
"""Of a 64-bit number."""

DURATION_DAYS_MAX = 36_500
"""Longest duration that is taken: timers and times of day end not far beyond."""


def parse_duration_s(text: str, option: str) -> float:
    """Parse a duration such as ``30m``, ``10s``, ``2h`` or ``1d`` to seconds.

    Raises:
        InvalidInputError: another form, zero, or more than a century.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds > DURATION_DAYS_MAX * _SECONDS["d"]:
        raise InvalidInputError(problem=f"{text!r} is longer than {DURATION_DAYS_MAX:,} days", where=option)
    if seconds <= 0:
        raise InvalidInputError(problem=f"{text!r} is not a duration", where=option, remedy="Write 10s, 30m, 2h or 1d.")
    return seconds


PollInterval = Annotated[str, typer.Option("--poll-interval", help="Time between two looks for what is new, e.g. 10s.", metavar="DURATION")]


INTERVAL_S_MIN = 0.1
"""Shortest time between two looks: below it, looking would be all that is done."""


def parse_interval_s(text: str, option: str = "--poll-interval") -> float:
    """Parse a duration in the form of `parse_duration_s`; a number without a unit is seconds.

    Raises:
        InvalidInputError: another form, less than `INTERVAL_S_MIN`, or more than a century.
    """
    interval_s = parse_duration_s(f"{text}s" if text.strip()[-1:].isdigit() else text, option)
    if interval_s < INTERVAL_S_MIN:
        raise InvalidInputError(problem=f"{text!r} is less than {INTERVAL_S_MIN} s", where=option)
    return interval_s


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """Endpoints that are asked about epochs."""

    rpc: Annotated[
        list[str] | None,
        typer.Option(
            "--rpc",
            help="A JSON-RPC endpoint that the epoch context is taken from, or checked against; may be repeated. What two sources "
            "say of one epoch must agree. Keys in the URL are never shown.",
            rich_help_panel=_EPOCH,
            show_default=False,
        ),
    ] = None
    rpc_rate: Annotated[
        float, typer.Option("--rpc-rate", min=0.01, max=10_000, help="Most requests a second to each endpoint.", rich_help_panel=_EPOCH)
    ] = REQUESTS_PER_S

    def contexts(self, given: Path | None = None) -> EpochContextFinder:
        """Return what finds the contexts of epochs; an endpoint that is left out is logged.

        Args:
            given: a file with an epoch's context.
        Raises:
            InvalidInputError: the file can't be read, or an endpoint is not an http or https URL.
        """
        return EpochContextFinder(
            given=None if given is None else read_context_file(given.expanduser()),
            endpoints=tuple(RpcContextSource(RpcClient(url, RpcLimits(requests_per_s=self.rpc_rate))) for url in self.rpc or ()),
            note_left_out=lambda failure: structlog.get_logger().warning(
                "an endpoint was left out", where=failure.where, problem=failure.problem
            ),
            note_chosen=lambda why: structlog.get_logger().info(why),
        )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a command works, and where its tasks run."""

    kernel: KernelName = "auto"
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="A Ray cluster's address. Default: Ray inside this process.", rich_help_panel=_RUN)
    ] = None
    ray_patience: RayPatience = None
    """Seconds; None for the executor's own."""
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Cores for Ray inside this process, which starts at once then. Default: all, beside a node half of them, "
            "started when the work takes more than seconds.",
            rich_help_panel=_RUN,
        ),
    ] = None
    in_process: Annotated[
        bool, typer.Option("--in-process", help="No Ray: one task after another in this process.", rich_help_panel=_RUN)
    ] = False

    def read_limit_each(self, read_limit: str | None) -> int | None:
        """Return the bytes a second that each process may read of what all on this machine may read from a node's disk together.

        Args:
            read_limit: None for the default.
        Returns:
            None for no limit.
        Raises:
            InvalidInputError: no number of bytes a second.
        """
        text = NODE_READ_LIMIT if read_limit is None else read_limit
        if text.strip().lower() == NO_LIMIT:
            return None
        return max(1, parse_rate(text, "--read-limit") // self.processes_beside_node)

    @property
    def on_cluster(self) -> bool:
        """Whether tasks run on a Ray cluster's machines."""
        return not self.workers and not self.in_process and bool(self.ray_address or os.environ.get(ADDRESS_VARIABLE))

    def processes_at_once(self, *, beside_node: bool) -> int:
        """Return how many processes work at once on this machine, where it is not a cluster's machines that work."""
        if self.in_process:
            return 1
        return self.workers or (workers_beside_node() if beside_node else machine_cores())

    @property
    def processes_beside_node(self) -> int:
        """How many processes work at once on a node's machine; of a cluster that is not known, and taken for this machine's cores."""
        return machine_cores() if self.on_cluster else self.processes_at_once(beside_node=True)

    def neighbour_note(self, read_limit: str | None) -> str:
        """Say how much of a node's machine a run takes, in a few words."""
        cores = "" if self.on_cluster else f"{self.processes_beside_node} of {machine_cores()} cores, "
        text = (NODE_READ_LIMIT if read_limit is None else read_limit).strip()
        reading = "no limit to reading" if text.lower() == NO_LIMIT else f"at most {text.removesuffix('/s')}/s read"
        return f"beside the node: {cores}low I/O priority, {reading} (--workers, --read-limit)"


def workers_beside_node() -> int:
    """Return how many cores are taken beside a node where nothing else is said: half, and at least one."""
    return max(1, machine_cores() // 2)


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """Which publishers and which block a command trusts."""

    trusted_block: Annotated[
        str | None,
        typer.Option(
            "--trusted-block",
            help="Hash of the block that names the state roots (of an epoch: the sync block's parent), or of its child; ties them to the chain.",
            rich_help_panel=_TRUST,
        ),
    ] = None
    trust_key: Annotated[
        list[str] | None,
        typer.Option(
            "--trust-key",
            help="A publisher's public key (ed25519:… or ecdsa-p256:…) that must have signed; may be repeated.",
            rich_help_panel=_TRUST,
        ),
    ] = None
    trust_threshold: Annotated[
        int,
        typer.Option(
            "--trust-threshold", min=1, help="How many of the keys must have signed each shard's statement.", rich_help_panel=_TRUST
        ),
    ] = 1
    insecure: Annotated[bool, typer.Option("--insecure", help="Believe whatever is served.", rich_help_panel=_TRUST)] = False

    def block(self) -> CryptoHash | None:
        """Return the trusted block's hash; a text that is no hash is an InvalidInputError."""
        return None if self.trusted_block is None else CryptoHash.from_base58(self.trusted_block)

    def rule(self) -> TrustRule | None:
        """Return which publishers must have signed; None where no key is named.

        Raises:
            InvalidInputError: a threshold without so many keys, or a text that is no key.
        """
        if self.trust_key:
            return TrustRule(tuple(PublicKey.parse(text) for text in dict.fromkeys(self.trust_key)), self.trust_threshold)
        if self.trust_threshold != 1:
            raise InvalidInputError(problem="--trust-threshold needs as many --trust-key")
        return None

    def policy(self) -> TrustPolicy:
        """Return what ties an epoch to something that the reader knows.

        Raises:
            InvalidInputError: nothing or too much is given, or a text is no key or no hash.
        """
        given = [name for name, value in (("--trusted-block", self.trusted_block), ("--trust-key", self.trust_key)) if value]
        if self.insecure and given:
            raise InvalidInputError(problem=f"--insecure excludes {' and '.join(given)}", remedy="Leave --insecure out.")
        return TrustPolicy(self.rule(), self.block(), self.insecure)


def epoch_selector(epoch: str | None, epoch_id: str | None) -> str:
    """Return the one epoch selector that the options name.

    Raises:
        InvalidInputError: both are given and differ, or one is no selector.
    """
    for text in (epoch, epoch_id):
        if text is not None:
            check_epoch_selector(text)
    if epoch is not None and epoch_id is not None and epoch != epoch_id:
        raise InvalidInputError(problem="--epoch and --epoch-id name different epochs", remedy="Give one of them.")
    return epoch_id or epoch or "latest"


def node_home_folder(node_home: Path) -> Path:
    """Return a node's home; an InvalidInputError where there is no such folder: a node that was there and went away is another matter."""
    try:
        home = node_home.expanduser()
        is_there = home.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInputError(problem=f"the node's home can't be looked at: {error}", where="--node-home") from None
    if not is_there:
        remedy = "Give the folder that holds config.json and data."
        raise InvalidInputError(problem="the node's home is not a folder", where=f"--node-home {home}", remedy=remedy)
    return home


def check_epoch_selector(text: str) -> None:
    """Refuse what names no epoch: neither ``latest`` nor an epoch height nor an epoch id."""
    if text == "latest" or (text.isascii() and text.isdecimal() and len(text) <= EPOCH_HEIGHT_DIGITS_MAX):
        return
    try:
        CryptoHash.from_base58(text)
    except InvalidInputError:
        problem = f"{text[:64]!r} is no epoch"
        raise InvalidInputError(
            problem=problem, where="--epoch", remedy="Give latest, an epoch height, or an epoch id (32 bytes in base58)."
        ) from None


def open_executor(run: RunOptions, *, beside_node: bool = False) -> Executor:
    """Return what runs the tasks.

    Args:
        beside_node: on the machine of a node, which keeps half of the cores unless the options say otherwise.
    Raises:
        InvalidInputError: options that exclude each other, or a cluster that can't be reached.
    """
    if run.in_process:
        if run.ray_address or run.workers or run.ray_patience:
            raise InvalidInputError(problem="--in-process excludes --ray-address, --ray-patience and --workers")
        return InProcessExecutor()
    if run.ray_address and run.workers:
        raise InvalidInputError(problem="--workers is for Ray inside this process; a cluster at --ray-address has its own")
    if run.ray_address or run.workers or run.ray_patience or os.environ.get(ADDRESS_VARIABLE):
        return _open_ray(run)
    larger = replace(run, workers=workers_beside_node()) if beside_node else run
    return SmallWorkFirst(partial(_open_ray, larger, f"more than {SMALL_WORK_S:.0f} s of work: starting Ray"))


def open_embedded_executor(workers: int) -> Executor:
    """Return what runs tasks in this process while the work is small, and then on Ray inside of it; with one worker never on Ray."""
    if workers == 1:
        return InProcessExecutor()
    larger = RunOptions(workers=workers)
    return SmallWorkFirst(partial(_open_ray, larger, f"more than {SMALL_WORK_S:.0f} s of work: starting Ray"))


def _open_ray(run: RunOptions, announcement: str = "") -> Executor:
    if announcement:
        structlog.get_logger().info(announcement)
    from pipelines.execution.on_ray import PATIENCE_S, RayExecutor

    patience_s = PATIENCE_S if run.ray_patience is None else run.ray_patience
    executor = RayExecutor(run.ray_address, run.workers, patience_s=patience_s)
    # Asked once: the cluster's head is asked for it.
    if warning := executor.warning:
        structlog.get_logger().warning(warning)
    return executor
