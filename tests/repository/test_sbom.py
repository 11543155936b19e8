"""The bill of materials of a package: valid by SPDX 2.3, and of this package and no other."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
CONTENT = {"usr/lib/a.py": b"print()\n", "usr/share/doc/small/ä b": b"text", "etc/empty": b""}
CONTROL = """\
Package: small
Version: 1:2.0-1
Architecture: all
Maintainer: its maintainers <small@localhost.invalid>
Depends: python3-awscrt (>= 0.24),
 libstdc++6, systemd | systemd-sysusers, python3:any
Description: a small one
"""

pytestmark = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"
)


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    """A package with three files, all of one date."""
    tree = tmp_path / "tree"
    for name, content in {**CONTENT, "DEBIAN/control": CONTROL.encode()}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
        (tree / name).chmod(0o644)
    (tree / "usr/lib/link").symlink_to("a.py")
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
        if path.is_dir():
            path.chmod(0o755)
    made = tmp_path / "small_2.0-1_all.deb"
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", tree, made],
        env=env,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return made


def text_of(deb: Path, **env: str) -> str:
    argv = [sys.executable, str(CHECKOUT / "packaging/bin/sbom.py"), str(deb)]
    return subprocess.run(
        argv, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def bill(deb: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(text_of(deb))
    return told


def require_valid(told: dict[str, Any]) -> None:
    """The rules of SPDX 2.3 for a document with packages, files and relationships."""
    assert (told["spdxVersion"], told["dataLicense"], told["SPDXID"]) == (
        "SPDX-2.3",
        "CC0-1.0",
        "SPDXRef-DOCUMENT",
    )
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", told["documentNamespace"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["creationInfo"]["created"])
    assert all(one.startswith("Tool: ") for one in told["creationInfo"]["creators"])
    elements = [told["SPDXID"], *(one["SPDXID"] for one in (*told["packages"], *told["files"]))]
    assert len(set(elements)) == len(elements)
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", one) for one in elements)
    for one in told["relationships"]:
        assert {one["spdxElementId"], one["relatedSpdxElement"]} <= set(elements)
        assert one["relationshipType"] in ("DESCRIBES", "DEPENDS_ON", "CONTAINS")
    related = {one["relatedSpdxElement"] for one in told["relationships"]}
    assert related == set(elements) - {told["SPDXID"]}
    lengths = {"SHA1": 40, "SHA256": 64}
    for one in told["packages"]:
        assert one["name"]
        assert one["downloadLocation"]
        assert one["filesAnalyzed"] == ("packageVerificationCode" in one)
    for one in (*told["files"], told["packages"][0]):
        for checksum in one["checksums"]:
            assert re.fullmatch(
                rf"[0-9a-f]{{{lengths[checksum['algorithm']]}}}", checksum["checksumValue"]
            )
    for one in told["files"]:
        assert one["fileName"].startswith("./")
        assert {"SHA1", "SHA256"} == {checksum["algorithm"] for checksum in one["checksums"]}


def checksums(told: dict[str, Any], algorithm: str) -> dict[str, str]:
    return {
        file["fileName"].removeprefix("./"): checksum["checksumValue"]
        for file in told["files"]
        for checksum in file["checksums"]
        if checksum["algorithm"] == algorithm
    }


def test_it_is_valid_and_has_every_file_with_its_checksums(deb: Path) -> None:
    told = bill(deb)
    require_valid(told)
    assert checksums(told, "SHA256") == {
        name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()
    }
    sha1 = {name: hashlib.sha1(content).hexdigest() for name, content in CONTENT.items()}
    assert checksums(told, "SHA1") == sha1
    package = told["packages"][0]
    code = hashlib.sha1("".join(sorted(sha1.values())).encode()).hexdigest()
    assert package["packageVerificationCode"] == {"packageVerificationCodeValue": code}
    assert package["checksums"] == [
        {"algorithm": "SHA256", "checksumValue": hashlib.sha256(deb.read_bytes()).hexdigest()}
    ]
    assert (package["name"], package["versionInfo"], package["packageFileName"]) == (
        "small",
        "1:2.0-1",
        deb.name,
    )


def test_what_it_depends_on_is_there_with_its_bounds(deb: Path) -> None:
    told = {one["name"]: one["versionInfo"] for one in bill(deb)["packages"][1:]}
    assert told == {
        "python3-awscrt": ">= 0.24",
        "libstdc++6": "any",
        "systemd": "any",
        "python3": "any",
    }


def test_the_same_package_gives_the_same_bytes_wherever_and_whenever(
    deb: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / deb.name
    elsewhere.parent.mkdir()
    shutil.copyfile(deb, elsewhere)
    assert text_of(deb) == text_of(elsewhere, TZ="XYZ-5:45", LC_ALL="C", PYTHONHASHSEED="7")
    assert bill(deb)["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_another_package_has_another_namespace(deb: Path, tmp_path: Path) -> None:
    first = bill(deb)["documentNamespace"]
    (tmp_path / "tree/usr/lib/a.py").write_bytes(b"other\n")
    subprocess.run(
        ["dpkg-deb", "--build", tmp_path / "tree", deb], stdout=subprocess.DEVNULL, check=True
    )
    assert bill(deb)["documentNamespace"] != first
