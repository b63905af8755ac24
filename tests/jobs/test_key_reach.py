"""The signing key is out of the reach of the workers on the same machine, where it belongs to another user than they do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.commands import PROCESS_TIMEOUT_S, epoch_folder, start_process, statecast
from tests.support.nodes import localnet_home
from tests.support.published import public_key, signing_key

READ_LIMIT = "150KB/s"
"""So that the run lasts until it has been looked into."""

LOOK = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[2])
@ray.remote(num_cpus=0)
def look(paths):
    answers = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
            answers.append("read")
        except OSError as error:
            answers.append(type(error).__name__)
    return answers
print(*ray.get(look.remote(sys.argv[3:]), timeout=60))
"""
"""Stands for whatever might go wrong in a worker: it has the token and runs as a task."""


def embedded_ray(process: subprocess.Popen[str]) -> tuple[str, Path]:
    """Return the address and the folder of the Ray of a command."""
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            arguments = child.cmdline()
            if arguments and arguments[0].endswith("/raylet"):
                (address,) = [found[1] for found in map(re.compile(r"--gcs-address=(.+)").fullmatch, arguments) if found]
                (socket,) = [found[1] for found in map(re.compile(r"--raylet_socket_name=(.+)").fullmatch, arguments) if found]
                return address, Path(socket).parents[3]
        time.sleep(0.05)
    raise AssertionError(f"no Ray came up: {process.communicate()}")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can give a key to another user")
def test_no_worker_can_read_a_key_that_comes_through_standard_input(tmp_path: Path) -> None:
    """Neither its file, nor what the driver has of it: its memory, its environment, the descriptor that it read it from."""
    key = tmp_path / "key.json"
    shutil.copy(signing_key(), key)
    os.chown(key, 65_534, 65_534)
    os.chmod(key, 0o400)
    arguments = ("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", tmp_path / "work", "--workers", "1")
    with open(key, "rb") as stdin:
        # Root without its powers is a user like any.
        driver = start_process(
            *arguments, "--read-limit", READ_LIMIT, "--signing-key", "-", before=["setpriv", "--bounding-set=-all"], stdin=stdin
        )
    try:
        address, folder = embedded_ray(driver)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        }
        of_driver = [f"/proc/{driver.pid}/{name}" for name in ("mem", "environ", "fd/0")]
        looked = subprocess.run(
            [sys.executable, "-c", LOOK, address, str(folder / "r"), str(localnet_home() / "config.json"), str(key), *of_driver],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
        assert looked.stdout.split() == ["read", *["PermissionError"] * 4], looked.stderr[-2000:]
        _, stderr = driver.communicate(timeout=PROCESS_TIMEOUT_S)
        assert driver.returncode == 0, stderr
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGTERM)
            driver.communicate()
    assert statecast("check", epoch_folder(tmp_path / "out"), "--trust-key", public_key(), "--in-process").code == 0
    assert not folder.exists(), "the token and all that Ray wrote are gone with it"
