"""Writes the tables of the modules' READMEs (providers, inputs, outputs) between terraform-docs' own markers, in its form.

terraform-docs does the same. Usage: python infra/terraform/module_tables.py --write; without it, says what is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import hcl2

BEGIN, END = "<!-- BEGIN_TF_DOCS -->", "<!-- END_TF_DOCS -->"
FOLDER = Path(__file__).resolve().parent


def module_folders() -> list[Path]:
    """Return the folders of all modules and environments."""
    return sorted({file.parent for file in FOLDER.rglob("versions.tf") if ".terraform" not in file.parts})


def tables(folder: Path) -> str:
    """Return the tables of one module."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.tf")):
        for kind, bodies in hcl2.loads(file.read_text()).items():
            blocks.setdefault(kind, []).extend(bodies)
    lines = [BEGIN, "## Requirements", "", "| Name | Version |", "|------|---------|"]
    lines += [f"| {name} | {version} |" for name, version in _requirements(blocks)]
    lines += [
        "",
        "## Inputs",
        "",
        "| Name | Description | Type | Default | Required |",
        "|------|-------------|------|---------|:--------:|",
    ]
    defaults = _defaults(folder)
    for name, body in sorted(_named(blocks.get("variable", []))):
        default = f"`{defaults[name]}`" if "default" in body else "n/a"
        lines.append(
            f"| {name} | {_text(body['description'])} | `{_type(body['type'])}` | {default} | {'no' if 'default' in body else 'yes'} |"
        )
    lines += ["", "## Outputs", "", "| Name | Description |", "|------|-------------|"]
    lines += [f"| {name} | {_text(body['description'])} |" for name, body in sorted(_named(blocks.get("output", [])))]
    return "\n".join([*lines, END])


def _named(bodies: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name.strip('"'), body) for found in bodies for name, body in found.items() if not name.startswith("__")]


def _requirements(blocks: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    found = []
    for body in blocks["terraform"]:
        found.append(("terraform", _text(body["required_version"])))
        for required in body.get("required_providers", []):
            found += [(name, _text(provider["version"])) for name, provider in required.items() if not name.startswith("__")]
    return found


def _text(value: object) -> str:
    return str(value).strip('"').replace("|", "\\|")


def _type(value: object) -> str:
    return " ".join(str(value).removeprefix("${").removesuffix("}").split()) if str(value).startswith("${") else str(value)


def _defaults(folder: Path) -> dict[str, str]:
    """Return defaults as they are written: the parser's form of a list or a map is not Terraform's."""
    text = (folder / "variables.tf").read_text()
    found = {}
    for block in re.split(r'^variable "', text, flags=re.MULTILINE)[1:]:
        default = re.search(r"^  default\s*= (.*?)(?=^  \w|^}|\n\n)", block, flags=re.MULTILINE | re.DOTALL)
        if default:
            found[block.split('"', 1)[0]] = " ".join(default[1].split())
    return found


def with_tables(folder: Path) -> str:
    """Return a module's README with its tables as they should be."""
    readme = (folder / "README.md").read_text()
    head, _, rest = readme.partition(BEGIN)
    return head + tables(folder) + rest.partition(END)[2]


def main() -> None:
    """Write the tables, or say which are out of date."""
    stale = [folder for folder in module_folders() if (folder / "README.md").read_text() != with_tables(folder)]
    if "--write" in sys.argv[1:]:
        for folder in stale:
            (folder / "README.md").write_text(with_tables(folder))
    elif stale:
        sys.exit("out of date: " + ", ".join(str(folder.relative_to(FOLDER)) for folder in stale))


if __name__ == "__main__":
    main()
