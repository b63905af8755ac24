"""Passwords, signatures and keys in URLs that a command is given: it repeats them nowhere."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from tests.support.commands import statecast
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet

SECRET = "s3cr3tW0rd"

URLS = {
    "password": f"https://user:{SECRET}@127.0.0.1:1/states",
    "signature": f"https://127.0.0.1:1/states?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    "token": f"http://127.0.0.1:1/states?sv=1&sig={SECRET}%3D",
    "slash": f"https://user:{SECRET}/{SECRET}@127.0.0.1:1/states",
    "space": f"https://user:{SECRET} {SECRET}@127.0.0.1:1/states",
    "port": f"https://user:{SECRET}@127.0.0.1:port/states",
    "host": f"https://user:{SECRET}\u2100@127.0.0.1/states",
    "bucket": f"s3://user:{SECRET}@bucket/states?sig={SECRET}",
    "other": f"sftp://user:{SECRET}@127.0.0.1:1/states?key={SECRET}",
    "chained": f"zip://a.zip::https://user:{SECRET}@127.0.0.1:1/a?sig={SECRET}",
    "long": f"https://user:{SECRET * 40}@127.0.0.1:1/states",
    "unknown": f"gopher://user:{SECRET}@127.0.0.1:1/states?key={SECRET}",
}

COMMANDS = {
    "inspect": ("inspect", "URL"),
    "check": ("check", "URL", "--in-process"),
    "fetch": ("fetch", "URL", "--chain-id", "test", "--epoch", "7", "--insecure", "--into", "FOLDER/into"),
    "fetch --source": ("fetch", "BUCKET", "--source", "URL", "--insecure", "--into", "FOLDER/into", "--plan", "--epoch", "99"),
    "fetch magnet": ("fetch", "BUCKET", "--source", "magnet:?tr=URL", "--insecure", "--into", "FOLDER/into"),
    "catalogue": ("catalogue", "URL", "--chain-id", "test"),
    "scrub": ("scrub", "URL", "--chain-id", "test", "--in-process"),
    "gc": ("gc", "URL/chain_id=test", "--keep-epochs", "1", "--plan"),
    "prove": ("prove", "URL", "--account", "alice.near"),
    "get": ("get", "URL", "--chain-id", "test", "--account", "alice.near", "--to", "FOLDER/out.csv"),
    "get --epochs": ("get", "URL/chain_id=test", "--account", "alice.near", "--epochs", "1..2", "--to", "FOLDER/out.csv"),
    "tables --format": ("tables", "dataset://BUCKET", "--to", "URL", "--format", "iceberg", "--in-process"),
    "seed": ("seed", "URL", "--data", "FOLDER/data", "--insecure", "--once"),
    "restore": ("restore", "URL", "--to", "dataset://FOLDER/out", "--in-process"),
    "restore --to": ("restore", "BUCKET", "--to", "dataset://URL", "--in-process"),
    "export --to": ("export", "--node-home", "HOME", "--to", "dataset://URL", "--in-process"),
    "tables": ("tables", "dataset://URL", "--to", "FOLDER/out", "--in-process"),
    "produce --to": ("produce", "--node-home", "HOME", "--to", "URL", "--allow-unsigned", "--in-process"),
    "produce --from": ("produce", "--from", "dataset://URL", "--to", "FOLDER/out", "--allow-unsigned", "--in-process"),
    "produce --work": ("produce", "--node-home", "HOME", "--to", "FOLDER/out", "--work", "URL", "--allow-unsigned", "--in-process"),
    "produce --web-seed": ("produce", "--node-home", "HOME", "--to", "FOLDER/out", "--web-seed", "URL", "--allow-unsigned", "--in-process"),
    "produce --mirror": ("produce", "--node-home", "HOME", "--to", "FOLDER/out", "--mirror", "URL", "--allow-unsigned", "--in-process"),
    "produce --rpc": ("produce", "--rpc", "URL", "--node-home", "FOLDER", "--to", "FOLDER/out", "--allow-unsigned", "--in-process"),
    "header --rpc": ("header", "--rpc", "URL", "--node-home", "FOLDER", "--shard-id", "0"),
    "watch": ("watch", "--node-home", "FOLDER", "--to", "URL", "--in-process"),
    "backfill": ("backfill", "--node-home", "HOME", "--to", "URL", "--from-epoch", "1", "--to-epoch", "1", "--plan"),
    "keygen": ("keygen", "kms://URL"),
    "usage": ("inspect", "BUCKET", "--URL"),
}


WAITS = ("fetch", "catalogue")
"""They ask a server that does not answer several times."""


NO_URL = ("usage", "space")
"""An option with a space in it: nobody knows where a URL begins and ends there."""


def is_quick(command: str, url: str) -> bool:
    """Whether a pair is tried in every run: all of them take too long."""
    return command == "inspect" or (url == "password" and command not in WAITS)


@pytest.mark.parametrize(
    ("command", "url"),
    [pytest.param(*pair, marks=() if is_quick(*pair) else pytest.mark.slow) for pair in product(COMMANDS, URLS) if pair != NO_URL],
)
def test_no_secret_of_a_url_is_repeated(command: str, url: str, tmp_path: Path) -> None:
    """In no line, no JSON, no name of a file, and no file."""
    words = {"HOME": str(localnet_home()), "BUCKET": str(published_localnet()), "FOLDER": str(tmp_path), "URL": URLS[url]}
    arguments = [re.sub("|".join(words), lambda found: words[found[0]], word) for word in COMMANDS[command]]
    for form in ((), ("--json",)):
        outcome = statecast(*arguments, *form)
        assert SECRET not in outcome.stdout + outcome.stderr
        assert outcome.code not in (0, 1), (outcome.code, outcome.stderr)
    left = [path for path in tmp_path.rglob("*") if SECRET in str(path) or (path.is_file() and SECRET.encode() in path.read_bytes())]
    assert left == []
