"""``statecast keygen``: makes the key that signs manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jobs.options import Json
from pipelines.publishing.signing import generate_key

DEFAULT_SIGNING_KEY = Path("~/.config/statecast/signing_key.json")
"""Where keygen puts the key and produce looks for it."""


def keygen(
    file: Annotated[Path, typer.Argument(help="File to write; never overwritten.")] = DEFAULT_SIGNING_KEY,
    as_json: Json = False,
) -> None:
    """Make an ed25519 key for signing manifests; the file is readable by you alone.

    Example: `statecast keygen`, then give readers the public key that it prints: they pass it as `--trust-key`.
    """
    path = file.expanduser()
    public_key = generate_key(path)
    if as_json:
        typer.echo(json.dumps({"message_type": "summary", "public_key": public_key, "file": str(path)}))
    else:
        typer.echo(f"public key {public_key}\nsecret key in {path} (mode 0600)")
