"""The bill of materials of a package, as SPDX 2.3 in JSON.

The bill lists the contents with checksums, and the packages that are installed in addition.

    python3 packaging/bin/sbom.py FILE.deb >FILE.spdx.json

Only the package itself is read, so the same package gives the same bytes. dpkg-deb has to be there.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

_NOTHING = "NOASSERTION"
_NAMES = uuid.UUID(
    "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
)  # RFC 4122, appendix C: names that are URLs
_FIELDS = ("Package", "Version", "Maintainer", "Depends")


class Content(NamedTuple):
    """A regular file of the package."""

    name: str
    sha1: str
    sha256: str


def document(deb: Path) -> dict[str, Any]:
    """The whole document of a package."""
    fields = _fields(deb)
    name, version = fields["Package"], fields["Version"]
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    files, made = _contents(deb)
    package = {
        "SPDXID": "SPDXRef-Package",
        "name": name,
        "versionInfo": version,
        "packageFileName": deb.name,
        "supplier": f"Organization: {fields['Maintainer'].partition(' <')[0]}",
        "downloadLocation": _NOTHING,
        "filesAnalyzed": True,
        "packageVerificationCode": {"packageVerificationCodeValue": _verification(files)},
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "licenseInfoFromFiles": [_NOTHING],
        "copyrightText": _NOTHING,
        "externalRefs": [_purl(name, version)],
    }
    dependencies = [_dependency(*one) for one in _depends(fields["Depends"])]
    listed = [_file(number, file) for number, file in enumerate(files, 1)]
    relationships = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Package")]
    relationships += [("SPDXRef-Package", "DEPENDS_ON", one["SPDXID"]) for one in dependencies]
    relationships += [("SPDXRef-Package", "CONTAINS", one["SPDXID"]) for one in listed]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": deb.name.removesuffix(".deb"),
        "documentNamespace": f"urn:uuid:{uuid.uuid5(_NAMES, f'{deb.name} {digest}')}",
        "creationInfo": {
            "created": f"{made:%Y-%m-%dT%H:%M:%SZ}",
            "creators": [f"Tool: {name}-packaging-sbom-{version}"],
        },
        "packages": [package, *dependencies],
        "files": listed,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relationships
        ],
    }


def _fields(deb: Path) -> dict[str, str]:
    """Of its control file, each on one line."""
    told = subprocess.run(
        ["dpkg-deb", "--field", deb, *_FIELDS], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    pairs = (line.split(": ", 1) for line in re.sub(r"\n\s+", " ", told).splitlines())
    return dict(pairs)


def _depends(text: str) -> Iterator[tuple[str, str]]:
    """(name, bound) of each dependency.

    Of alternatives it is the first, which apt takes where none is installed.
    """
    for one in text.split(","):
        found = re.match(r"\s*([a-z0-9][a-z0-9+.-]*)(?::any)?\s*(?:\(([^)]+)\))?", one)
        if found is None:
            raise ValueError(f"not a dependency: {one!r}")
        yield found[1], found[2] or ""


def _contents(deb: Path) -> tuple[list[Content], datetime]:
    """Every regular file, by name, and when the youngest was made: the date of the changelog."""
    files, youngest = [], 0
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                youngest = max(youngest, int(member.mtime))
                if member.isreg() and (stream := archive.extractfile(member)) is not None:
                    data = stream.read()
                    sums = (
                        hashlib.sha1(data, usedforsecurity=False).hexdigest(),
                        hashlib.sha256(data).hexdigest(),
                    )
                    files.append(Content(f"./{PurePosixPath(member.name)}", *sums))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "dpkg-deb")
    return sorted(files), datetime.fromtimestamp(youngest, UTC)


def _verification(files: list[Content]) -> str:
    """SPDX 2.3, 7.9: over the sorted checksums of all files."""
    return hashlib.sha1(
        "".join(sorted(file.sha1 for file in files)).encode(), usedforsecurity=False
    ).hexdigest()


def _file(number: int, file: Content) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-File-{number}",
        "fileName": file.name,
        "checksums": [
            {"algorithm": "SHA1", "checksumValue": file.sha1},
            {"algorithm": "SHA256", "checksumValue": file.sha256},
        ],
        "licenseConcluded": _NOTHING,
        "licenseInfoInFiles": [_NOTHING],
        "copyrightText": _NOTHING,
    }


def _dependency(name: str, bound: str) -> dict[str, Any]:
    """A dependency that Debian provides.

    The version, within the bounds, is decided where the package is installed.
    """
    return {
        "SPDXID": f"SPDXRef-Debian-{name.replace('+', '-plus')}",
        "name": name,
        "versionInfo": bound or "any",
        "supplier": "Organization: Debian",
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": _NOTHING,
        "copyrightText": _NOTHING,
        "externalRefs": [_purl(name, "")],
    }


def _purl(name: str, version: str) -> dict[str, str]:
    locator = f"pkg:deb/debian/{name.replace('+', '%2B')}" + (f"@{version}" if version else "")
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(Path(sys.argv[1])), indent=1) + "\n")
