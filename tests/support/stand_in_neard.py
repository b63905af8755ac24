"""A stand-in for neard: answers version and help, pretends to load state parts, writes down how it was called, misbehaves on request.

Run as a program with the path of a JSON file first: ``release``, ``write_option``, ``calls`` (a file that gets a line a call) and
``behaviour``, one of those that `main` knows. Needs nothing of the project, so that it starts quickly. It shows how this project calls
neard and copes with it, not that a real neard takes the parts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

LOAD_HELP = """Load all or a single state part of a shard and perform an action over those parts

Usage: neard view-state state-parts load [OPTIONS] --action <ACTION> <COMMAND>

Commands:
  current       Current epoch
  epoch-id      Fetch the given epoch
  epoch-height  Fetch epochs at the given height

Options:
      --action <ACTION>          Apply, validate or print [possible values: apply, print, validate]
      --state-root <STATE_ROOT>  If provided, this value will be used instead of looking it up in the headers
      --sync-hash <SYNC_HASH>    If provided, this value will be used instead of looking it up in the headers
      --part-id <PART_ID>        Choose a single part id
"""


def write_program(folder: Path, release: str = "2.13.0", behaviour: str = "", write_option: str = "--read-write") -> Path:
    """Make a stand-in in a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "neard.json"
    calls = folder / "calls.jsonl"
    settings.write_text(json.dumps({"release": release, "behaviour": behaviour, "write_option": write_option, "calls": str(calls)}))
    program = folder / "neard"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "{settings}" "$@"\n')
    program.chmod(0o755)
    return program


def calls_of(program: Path) -> list[list[str]]:
    """Return the arguments of every call that was not for version or help, in order."""
    calls = program.with_name("calls.jsonl")
    recorded = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return [call for call in recorded if not {"--version", "--help"} & set(call)]


def main(settings_file: str, arguments: list[str]) -> int:
    """Be a neard."""
    settings = json.loads(Path(settings_file).read_text())
    with Path(settings["calls"]).open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    behaviour = settings["behaviour"]
    if arguments == ["--version"]:
        return answer_version(settings["release"], behaviour)
    if "--help" in arguments:
        if behaviour == "other tool":
            print("Usage: neard view-state [OPTIONS] <COMMAND>")
        else:
            print(
                LOAD_HELP
                if "load" in arguments
                else f"Commands:\n  state-parts  Dump or apply state parts\n\n  -w, {settings['write_option']}\n"
            )
        return 0
    return load(arguments, behaviour)


def answer_version(release: str, behaviour: str) -> int:
    """Say the version, or something else."""
    if behaviour == "not neard":
        print("GNU bash, version 5.2")
    else:
        print(f"neard (release {release}) (build {release}) (commit abc) (rustc 1.86.0) (protocol 82) (db 47)\nfeatures: [default]")
    return 0


def load(arguments: list[str], behaviour: str) -> int:
    """Pretend to load parts: one line each, as neard's log has them."""
    shard_id = option(arguments, "--shard-id")
    (folder,) = Path(option(arguments, "--root-dir")).glob(f"*/epoch_height={arguments[-1]}/*/shard_id={shard_id}")
    num_parts = len(os.listdir(folder))
    parts = [int(option(arguments, "--part-id"))] if "--part-id" in arguments else list(range(num_parts))
    if behaviour == "says nothing":
        print(" WARN state-parts: sync hash not yet known")
        return 0
    if behaviour == "garbage":
        sys.stdout.buffer.write(
            b"\xff\xfe\x00part_id=1 \x1b[" * 40_000 + b"\n" + b"loaded a state part part_id=zzz\npart_id=99999999999999\n"
        )
        return 0
    if behaviour == "fails":
        print("thread 'main' panicked at tools/state-viewer/src/state_parts.rs:300:\ncalled `Result::unwrap()` on an `Err` value")
        return 101
    for part in parts:
        if behaviour == "crashes midway" and len(parts) > 1 and part == num_parts // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour in ("hangs", "hangs and ignores") and part == num_parts // 2:
            hang(ignoring=behaviour == "hangs and ignores")
        print(
            f"\x1b[2m2026-11-23T08:00:00.000000Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mstate-parts\x1b[0m: Loaded a state part "
            f"\x1b[3mpart_id\x1b[0m\x1b[2m=\x1b[0m{part} \x1b[3mpart_length\x1b[0m\x1b[2m=\x1b[0m17 elapsed_sec=0.01",
            flush=True,
        )
    if behaviour != "forgets the last line":
        print(" INFO state-parts: Loaded all requested state parts total_elapsed_sec=0.1")
    return 0


def hang(*, ignoring: bool) -> None:
    """Say nothing any more."""
    if ignoring:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("hanging", flush=True)
    while True:
        time.sleep(60)


def option(arguments: list[str], name: str) -> str:
    """Return an option's value."""
    value = arguments[arguments.index(name) + 1]
    assert re.fullmatch(r"\S+", value), value
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
