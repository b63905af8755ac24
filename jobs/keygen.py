"""``statecast keygen``: makes the key that signs manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import Json
from jobs.terminal import print_json, say
from pipelines.producing.publish.key_file import generate_key
from pipelines.producing.publish.kms_key import SCHEME, open_kms_signer
from schemas.published.public_key import PublicKey

DEFAULT_SIGNING_KEY = Path("~/.config/statecast/signing_key.json")
"""Where keygen puts the key and produce looks for it."""


def keygen(
    file: Annotated[str, typer.Argument(help="File to write; never overwritten. Or kms://… of a key in a key service.")] = str(
        DEFAULT_SIGNING_KEY
    ),
    as_json: Json = False,
) -> None:
    """Make an ed25519 key for signing manifests; the file is readable by you alone.

    Example: `statecast keygen`, then give readers the public key that it prints: they pass it as `--trust-key`.

    Of a key in Google's or Amazon's key service, which is made there, the public key is printed: `statecast keygen kms://aws/alias/statecast`
    """
    if file.startswith(SCHEME):
        place, public_key = file, str(open_kms_signer(file).public_key)
        said = f"secret key in the key service, {file}"
    else:
        path = Path(file).expanduser()
        place, public_key = str(path), generate_key(path)
        said = f"secret key in {path} (mode 0600)"
    key_id = PublicKey.parse(public_key).key_id
    if as_json:
        print_json({"message_type": "summary", "public_key": public_key, "key_id": key_id, "file": place})
    else:
        say(f"public key {public_key}")
        say(f"key id {key_id}, its name in signatures")
        say(said)
