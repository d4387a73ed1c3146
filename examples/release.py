"""What travels with a release: sbom.json (CycloneDX 1.6) and SHA256SUMS of the built files.

python -m build && python examples/release.py dist          # writes dist/sbom.json, dist/SHA256SUMS
sha256sum --check SHA256SUMS                                 # in dist: what a user runs
"""

import argparse
import hashlib
import json
import re
import tomllib
import uuid
from pathlib import Path
from typing import Any

from runtimes.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
LISTS = ("sbom.json", "SHA256SUMS")


def pinned(constraints: Path) -> list[tuple[str, str]]:
    """(name, version) of every 'name==version' line, sorted; another line is an error."""
    found = []
    for line in constraints.read_text().splitlines():
        line = line.partition("#")[0].strip()
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", line)
        if line and match is None:
            raise ValueError(
                f"{constraints}: expected lines like name==1.2, got {line!r}; pin it exactly"
            )
        if match is not None:
            found.append((match[1], match[2]))
    return sorted(found, key=lambda pair: normal(pair[0]))


def normal(name: str) -> str:
    """A package name as an index writes it: lower case, one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def purl(name: str, version: str) -> str:
    """pkg:pypi/name@version."""
    return f"pkg:pypi/{normal(name)}@{version}"


def required(project: dict[str, Any], extra: str | None) -> set[str]:
    """The names that pyproject.toml asks for, with one of its extras."""
    lines = list(project["dependencies"])
    lines += [] if extra is None else project["optional-dependencies"][extra]
    return {normal(match[0]) for line in lines if (match := re.match(r"[A-Za-z0-9._-]+", line))}


def sbom(root: Path) -> dict[str, Any]:
    """The CycloneDX 1.6 document: the toolkit, every pinned package, and which of them it needs to run.

    scope "required" is what sampling needs; the rest is "optional": training, export and tests.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = pinned(root / "constraints.txt")
    run_time = required(project, "ort") & {normal(name) for name, _ in pins}
    itself = purl(project["name"], project["version"])
    parts = [
        {
            "type": "library",
            "bom-ref": purl(name, version),
            "name": name,
            "version": version,
            "purl": purl(name, version),
            "scope": "required" if normal(name) in run_time else "optional",
        }
        for name, version in pins
    ]
    # the same inputs give the same document, so no time and no random number
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([itself, parts], sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": itself,
                "name": project["name"],
                "version": project["version"],
                "purl": itself,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": parts,
        "dependencies": [
            {
                "ref": itself,
                "dependsOn": [part["purl"] for part in parts if part["scope"] == "required"],
            }
        ],
    }


def sums(folder: Path) -> str:
    """'hash  name' for every file of the folder, as sha256sum writes and checks it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in files
        if path.name != LISTS[1]
    ]
    return "".join(lines)


def release(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write both lists into a folder of built files. Raises ValueError if there is nothing to list."""
    built = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")] if folder.is_dir() else []
    if not built:
        raise ValueError(
            f"{folder}: expected a folder with a wheel or sdist, got none; run 'python -m build'"
        )
    text = json.dumps(sbom(root), indent=1) + "\n"
    bill = write_whole(folder / LISTS[0], text.encode())
    return [bill, write_whole(folder / LISTS[1], sums(folder).encode())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheel and sdist are")
    for path in release(parser.parse_args().folder):
        print(path)
