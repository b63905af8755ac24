"""The whole job on the bundled node database: unpack, keygen, produce, check, inspect. What ``make demo`` runs.

Everything happens in the folder ``demo`` of the project, with no network; run it twice and the second run finds its work done.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BUNDLED_NODE = PROJECT / "tests" / "fixtures" / "nodes" / "localnet.tar.gz"
STATECAST = Path(sysconfig.get_path("scripts")) / "statecast"


def run(*arguments: str) -> None:
    """Show a command and run it; stop the demo where it fails."""
    sys.stdout.write(f"\n$ statecast {' '.join(arguments)}\n")
    sys.stdout.flush()
    code = subprocess.run([STATECAST, *arguments], cwd=PROJECT, check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Run the demo."""
    folder = PROJECT / "demo"
    home = folder / "localnet" / "home"
    if not home.exists():
        unfinished = folder / "unpacking"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with tarfile.open(BUNDLED_NODE) as archive:
            archive.extractall(unfinished, filter="data")
        (unfinished / "localnet").replace(folder / "localnet")
        unfinished.rmdir()
    if not (folder / "signing_key.json").exists():
        run("keygen", "demo/signing_key.json")
    run(
        *("produce", "--node-home", "demo/localnet/home", "--to", "demo/bucket"),
        *("--signing-key", "demo/signing_key.json", "--work", "demo/work", "--report", "demo/report.html"),
    )
    (manifest,) = (folder / "bucket").glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")
    epoch = str(manifest.parent.relative_to(PROJECT))
    public_key = json.loads((folder / "signing_key.json").read_text())["public_key"]
    run("check", epoch, "--trust-key", public_key)
    run("inspect", epoch)
    sys.stdout.write("\nThe report with its plots is demo/report.html, the published epoch is under demo/bucket.\n")


if __name__ == "__main__":
    main()
