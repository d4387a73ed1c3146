"""The release lists against the files they speak of."""

import hashlib
import json
import re
import runpy
import subprocess
import tomllib
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RELEASE = runpy.run_path(str(ROOT / "examples" / "release.py"))


@pytest.fixture
def dist(tmp_path):
    (tmp_path / "toolkit-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "toolkit-0.1.0.tar.gz").write_bytes(b"sdist")
    RELEASE["release"](tmp_path)
    return tmp_path


def test_bill_of_materials(dist):
    bill = json.loads((dist / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    uuid.UUID(bill["serialNumber"].removeprefix("urn:uuid:"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bill["metadata"]["component"]["version"] == project["version"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {tuple(line.split("==")) for line in lines if "==" in line and line[0] != "#"}
    parts = bill["components"]
    assert {(part["name"], part["version"]) for part in parts} == pins
    for part in parts:
        assert re.fullmatch(rf"pkg:pypi/[a-z0-9-]+@{re.escape(part['version'])}", part["purl"])
        assert part["type"] == "library"
    refs = [part["bom-ref"] for part in parts]
    assert len(set(refs)) == len(refs)
    (needs,) = bill["dependencies"]
    assert {ref.split("/")[1].split("@")[0] for ref in needs["dependsOn"]} == {
        "click",
        "numpy",
        "onnxruntime",
    }
    assert set(needs["dependsOn"]) <= set(refs)


def test_sums_are_those_of_the_files(dist):
    lines = dict(line.split("  ")[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert set(lines) == {path.name for path in dist.iterdir()} - {"SHA256SUMS"}
    for name, digest in lines.items():
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=dist, check=False).returncode == 0
    (dist / "toolkit-0.1.0.tar.gz").write_bytes(b"other")
    done = subprocess.run(check, cwd=dist, check=False, capture_output=True)
    assert done.returncode != 0


def test_the_same_release_gives_the_same_lists(dist):
    before = [(dist / name).read_bytes() for name in ("sbom.json", "SHA256SUMS")]
    RELEASE["release"](dist)
    assert [(dist / name).read_bytes() for name in ("sbom.json", "SHA256SUMS")] == before


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with a wheel"):
        RELEASE["release"](tmp_path)
    (tmp_path / "constraints.txt").write_text("numpy>=1\n")
    with pytest.raises(ValueError, match=r"expected lines like name==1\.2, got 'numpy>=1'"):
        RELEASE["pinned"](tmp_path / "constraints.txt")
