"""The manifests of `infra/kubernetes` as kustomize builds them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "infra" / "kubernetes"
OVERLAYS = tuple(sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir()))


def build_overlay(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return an overlay's documents, as `kubectl kustomize` makes them."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if shutil.which(command[0]) is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def overlay_with(overlay: str, component: str, literal: str, folder: Path) -> tuple[dict[str, Any], ...]:
    """Return an overlay's documents with one more component, and a setting that it needs; built of a copy in an empty folder."""
    file = Path(shutil.copytree(KUBERNETES, folder / "kubernetes")) / "overlays" / overlay / "kustomization.yaml"
    document = yaml.safe_load(file.read_text())
    document.setdefault("components", []).append(f"../../{component}")
    document["configMapGenerator"][0]["literals"].append(literal)
    file.write_text(yaml.safe_dump(document))
    return build_overlay(file.parent)


@cache
def built_overlay(overlay: str) -> tuple[dict[str, Any], ...]:
    """Return the documents of one of the project's overlays."""
    return build_overlay(KUBERNETES / "overlays" / overlay)


def pod_templates(documents: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every pod template with a name for messages."""
    for document in documents:
        name, spec = f"{document['kind']} {document['metadata']['name']}", document.get("spec", {})
        match document["kind"]:
            case "Deployment" | "StatefulSet":
                yield name, spec["template"]
            case "CronJob":
                yield name, spec["jobTemplate"]["spec"]["template"]
            case "RayJob":
                yield f"{name} head", spec["rayClusterSpec"]["headGroupSpec"]["template"]
                for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
                    yield f"{name} {group['groupName']}", group["template"]


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a pod's containers, those that come first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def named(overlay: str, kind: str, name: str) -> dict[str, Any]:
    """Return one document of an overlay."""
    return next(found for found in built_overlay(overlay) if found["kind"] == kind and found["metadata"]["name"] == name)
