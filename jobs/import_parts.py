"""``statecast import``: verified parts into a stopped node, through neard's own tool or configuration. Experimental."""

from __future__ import annotations

import json
import shlex
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from jobs.command_time import command_time
from jobs.options import Json, Plan, RunOptions, node_home_folder, open_executor
from jobs.parts_input import PartsOptions, open_parts
from jobs.terminal import BarProgress, LineProgress, format_seconds, open_progress, print_json, say
from pipelines.execution.progress import StageProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.restoring.into_node.external_storage import external_storage_stanza, write_config
from pipelines.restoring.into_node.import_plan import ImportPlan, plan_import
from pipelines.restoring.into_node.load_command import ShardLoad
from pipelines.restoring.into_node.load_parts import SILENCE_TIMEOUT_S, load_parts
from pipelines.restoring.into_node.neard_program import LoadWay, inspect_neard
from pipelines.restoring.into_node.node_guard import check_not_running
from pipelines.restoring.part_folder import EpochParts
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError

JOURNAL_FOLDER = Path("~/.cache/statecast/imports")
"""Where it is noted which parts a node has loaded."""


def import_parts(
    *,
    node_home: Annotated[Path, typer.Option("--node-home", help="Home of the stopped node that the parts are for.")],
    neard: Annotated[Path, typer.Option("--neard", help="The node's own neard.")],
    write_config_file: Annotated[
        bool, typer.Option("--write-config", help="With a neard before 2.13: put the stanza into config.json, keeping a copy.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=1.0, help="Stop neard when it says nothing for so many seconds.")
    ] = SILENCE_TIMEOUT_S,
    parts: PartsOptions,
    run: RunOptions,
    plan: Plan = False,
    as_json: Json = False,
) -> None:
    """Hand verified parts over to a stopped node. Experimental: not yet seen to work on a real neard; restore is the supported way.

    Never writes into the node's database itself. A neard from 2.13 on loads the parts with its own tool, run and watched; one
    before 2.13 reads them when it starts, as config.json tells it: the stanza is printed, and written only with --write-config.

    Refuses a running node, a chain, epoch, sync hash or state root that is not the node's, and any part that does not validate.
    A rerun goes on with the parts that are left.

    Example: `statecast import /data/parts --node-home ~/.near --neard /usr/bin/neard --plan`
    """
    home = node_home_folder(node_home)
    found = open_parts(parts)
    program = inspect_neard(neard)
    if write_config_file and program.way is LoadWay.TOOL:
        raise InvalidInputError(problem=f"neard {program.release} does not read parts from a folder", where="--write-config")
    planned = plan_import(
        found.context,
        found.shards,
        _local_root(found),
        home,
        program,
        journal_folder=JOURNAL_FOLDER.expanduser(),
    )
    if plan:
        _print_plan(planned, as_json)
        return
    chosen_kernel = choose_kernel(run.kernel)
    # Imported here: the command line must start quickly, and this loads RocksDB.
    from pipelines.restoring.restore_epoch import validate_parts

    with closing(open_progress()) as progress:
        with closing(open_executor(run)) as executor:
            progress.note(f"validating every part of {found.url} before neard {program.release} sees any")
            validate_parts(StageRunner(executor, progress), chosen_kernel.name, found)
        # Validating takes time, and the node may have been started meanwhile.
        check_not_running(planned.home, planned.data)
        loaded, backup = 0, None
        if program.way is LoadWay.TOOL:
            loaded = load_parts(planned, _Loaded(progress), timeout_s)
        elif write_config_file:
            backup = write_config(planned.config_file, planned.parts_root)
    _print_result(planned, loaded, backup, write_config_file, command_time.seconds(), as_json=as_json)


class _Loaded:
    """Shows each part that neard has loaded."""

    def __init__(self, progress: BarProgress | LineProgress) -> None:
        self._progress = progress
        self._done: dict[int, int] = {}

    def __call__(self, load: ShardLoad, part: int) -> None:
        done = self._done[load.shard_id] = self._done.get(load.shard_id, 0) + 1
        self._progress.stage(StageProgress("load", f"shard {load.shard_id}", done, load.num_parts, parts=done))


def _local_root(found: EpochParts) -> Path:
    """Return the folder that neard is pointed to: it must be on this machine."""
    root = open_store(found.store_url).local_root()
    if root is None:
        raise InvalidInputError(problem="neard reads parts from a folder", where=found.store_url, remedy="Fetch the parts first.")
    return root.resolve()


def _print_plan(planned: ImportPlan, as_json: bool) -> None:
    commands = planned.commands()
    stanza = external_storage_stanza(planned.parts_root) if planned.neard.way is LoadWay.CONFIG else None
    if as_json:
        document = {
            "message_type": "plan",
            "neard": planned.neard.release,
            "way": str(planned.neard.way),
            "commands": [{"shard_id": load.shard_id, "parts": list(parts), "command": list(command)} for load, command, parts in commands],
            "config_file": None if stanza is None else str(planned.config_file),
            "stanza": stanza,
        }
        print_json(document)
        return
    say(f"neard {planned.neard.release}; every part is validated first, then:")
    for load, command, parts in commands:
        say(f"# shard {load.shard_id}, {len(parts)} of {load.num_parts} parts")
        say(shlex.join(command))
    if stanza is not None:
        _print_stanza(planned)
    elif not commands:
        say("nothing: every part is noted as loaded")


def _print_stanza(planned: ImportPlan) -> None:
    say(f"{planned.config_file} is to say (with --write-config it is written):")
    for line in json.dumps(external_storage_stanza(planned.parts_root), indent=2).splitlines():
        say(line)


def _print_result(planned: ImportPlan, loaded: int, backup: Path | None, wrote: bool, seconds: float, *, as_json: bool) -> None:
    if as_json:
        document = {
            "message_type": "summary",
            "neard": planned.neard.release,
            "way": str(planned.neard.way),
            "parts_loaded": loaded,
            "config_written": backup is not None,
            "config_backup": None if backup is None else str(backup),
            "stanza": external_storage_stanza(planned.parts_root) if planned.neard.way is LoadWay.CONFIG else None,
            "seconds": round(seconds, 3),
        }
        print_json(document)
    elif planned.neard.way is LoadWay.TOOL:
        say(f"neard {planned.neard.release} loaded {loaded} parts in {format_seconds(seconds)}; it has not finished the state sync itself")
    elif not wrote:
        _print_stanza(planned)
    else:
        kept = "it said so already" if backup is None else f"the old one is {backup}"
        say(f"{planned.config_file} now points to {planned.parts_root}; {kept}. Start the node.")
