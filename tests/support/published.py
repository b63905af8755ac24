"""Published epochs for tests: made once a session from the committed nodes, then copied and damaged."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.signing import sign_payload
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import Outcome, statecast
from tests.support.nodes import localnet_home, node_a


@lru_cache
def session_folder() -> Path:
    """Return a folder that is removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="published-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def signing_key(name: str = "first") -> Path:
    """Return a key file; the same name gives the same key."""
    path = session_folder() / f"{name}.json"
    if not path.exists():
        generate_key(path)
    return path


def public_key(name: str = "first") -> str:
    """Return a key's public half."""
    return str(json.loads(signing_key(name).read_text())["public_key"])


def produce(to: object, *options: object, key: str = "first", work: object = None) -> Outcome:
    """Run ``produce`` in this process, signed."""
    folder = tempfile.mkdtemp(dir=session_folder()) if work is None else work
    # Written with a scheme, the work folder gets no report, which takes longer than a small state.
    return statecast("produce", "--to", to, "--signing-key", signing_key(key), "--work", f"file://{folder}", "--in-process", *options)


def produce_localnet(to: object, *options: object, key: str = "first", work: object = None) -> Outcome:
    """Produce the real node's newest epoch with nothing but its home."""
    return produce(to, "--node-home", localnet_home(), *options, key=key, work=work)


def produce_node_a(to: object, *options: object, key: str = "first", work: object = None) -> Outcome:
    """Produce node a's epoch, whose context is a file."""
    home = node_a()
    return produce(to, "--node-home", home, "--context", home / "context.json", *options, key=key, work=work)


@lru_cache
def published_localnet() -> Path:
    """Return the folder of the published localnet. It must not be changed."""
    folder = session_folder() / "localnet"
    outcome = produce_localnet(folder)
    assert outcome.code == 0, outcome.stderr
    return folder


def revise(bucket: Path, change: Callable[[Manifest], Manifest], key: str = "first") -> Manifest:
    """Replace the one epoch's manifest in a copy by another one of the same publisher, and return it."""
    (file,) = bucket.rglob("manifest.json")
    manifest = change(Manifest.from_payload(parse_envelope(file.read_bytes(), "test").payload, "test"))
    file.chmod(0o600)
    file.write_bytes(sign_payload(manifest.to_payload(), [load_signer(signing_key(key))]).to_bytes())
    return manifest


@lru_cache
def published_node_a() -> Path:
    """Return the folder of node a, published in 5 parts a shard as v1. It must not be changed."""
    folder = session_folder() / "node-a"
    outcome = produce_node_a(folder, "--num-parts", 5)
    assert outcome.code == 0, outcome.stderr
    return folder
