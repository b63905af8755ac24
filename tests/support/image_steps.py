"""Runs the Dockerfile's own steps in an empty folder, without a container engine.

The steps are read out of the Dockerfile, so they can't drift from it. A path that begins at the image's root (/src, /wheels, /opt) is put
below the folder; stages share it, so that what one leaves and another copies lies where both look. What makes an image and is
nothing for a folder is named in `SKIPPED` and reported; a step that is neither run nor named there is an error.

Usage: python -m tests.support.image_steps FOLDER
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.support.dockerfile import Instruction, is_ignored, parse_dockerfile, read_ignore

ROOT = Path(__file__).resolve().parents[2]
STEP_TIMEOUT_S = 3600
IMAGE_ROOTS = ("src", "wheels", "opt")
"""Top folders of the image that steps write to."""

SKIPPED = (
    (
        re.compile(r"^apt-get update && apt-get install [\w\s-]+ && rm -rf /var/lib/apt/lists/\*$"),
        "system packages: this machine has its own",
    ),
    (re.compile(r"^groupadd [\w\s-]+ && useradd [\w\s/-]+$"), "a user of the image"),
)
METADATA = frozenset({"USER", "LABEL", "ENTRYPOINT", "CMD", "ARG"})
"""Instructions that say something of the image and do nothing."""


class Runner:
    """The state between steps: the folder, the working folder, the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder
        self.environment: dict[str, str] = {}
        self.ignore = read_ignore(ROOT / ".dockerignore")
        self.skipped: list[str] = []

    def placed(self, text: str) -> str:
        """Return the text with the image's paths put below the folder."""
        return re.sub(rf"(?<![\w.])/(?=(?:{'|'.join(IMAGE_ROOTS)})\b)", f"{self.folder}/", text)

    def run(self, instruction: Instruction) -> None:
        """Carry out one instruction."""
        match instruction.name:
            case "RUN":
                self._run_command(instruction)
            case "COPY":
                self._copy(instruction.text)
            case "WORKDIR":
                # A folder of the image's own, such as /tmp, is where it is.
                self.work = Path(self.placed(instruction.text))
                self.work.mkdir(parents=True, exist_ok=True)
            case "ENV":
                self.environment = dict(pair.split("=", 1) for pair in shlex.split(self.placed(instruction.text)))
            case name:
                assert name in METADATA, f"line {instruction.line}: {name} is neither run nor left out by name"

    def _run_command(self, instruction: Instruction) -> None:
        for pattern, reason in SKIPPED:
            if pattern.match(instruction.text):
                self.skipped.append(f"line {instruction.line}: {reason}: {instruction.text}")
                return
        started = time.monotonic()
        command = ["/bin/sh", "-ec", self.placed(instruction.text)]
        environment = {**os.environ, **self.environment, "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        subprocess.run(command, cwd=self.work, env=environment, timeout=STEP_TIMEOUT_S, check=True)
        sys.stdout.write(f"line {instruction.line}: {time.monotonic() - started:.0f} s: {instruction.text[:120]}\n")

    def _copy(self, text: str) -> None:
        words = text.split()
        if words[0].startswith("--from="):
            made, place = (Path(self.placed(word)) for word in words[1:])
            assert made.exists(), f"COPY --from of {made}, which no earlier stage has made"
            assert made == place, "stages share the folder here, so a copy must keep its path"
            return
        *sources, target = words
        for source in sources:
            place = self.work / target / source if target.endswith("/") else self.work / target
            self._copy_context(source, place)

    def _copy_context(self, source: str, place: Path) -> None:
        """Copy out of the build context: what .dockerignore leaves of the repository."""
        listed = subprocess.run(["git", "ls-files", "-z", "--", source], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        files = [name for name in listed.split("\0") if name and not is_ignored(name, self.ignore)]
        assert files, f"COPY of {source}, which is not in the build context"
        for name in files:
            destination = place if name == source else place / Path(name).relative_to(source)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, destination)


def run_steps(folder: Path) -> list[str]:
    """Run all steps in an empty folder; return those that were left out, with the reason."""
    assert not any(folder.iterdir()), f"{folder} is not empty"
    runner = Runner(folder.resolve())
    for stage in parse_dockerfile((ROOT / "infra/image/Dockerfile").read_text()):
        for instruction in stage.instructions:
            runner.run(instruction)
    return runner.skipped


def main() -> None:
    """Run the steps, say what was left out, and run the entry point once."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for line in run_steps(folder):
        sys.stdout.write(f"left out, {line}\n")
    subprocess.run([folder / "opt/statecast/bin/statecast", "--version"], check=True)


if __name__ == "__main__":
    main()
