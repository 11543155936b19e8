"""The environments of tests, CI and tools.

Every version has its hashes, and setup.cfg's bounds hold.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
FILES = sorted((CHECKOUT / "requirements").glob("*.txt"))
METADATA = configparser.ConfigParser()
METADATA.read(CHECKOUT / "setup.cfg")
EXTRAS = METADATA["options.extras_require"]

Pins = dict[str, set[str]]
"""Versions by name: more than one where Pythons or platforms differ."""


def entries(file: Path) -> list[str]:
    """One requirement each, with its hashes, without comments."""
    lines = [
        line
        for line in file.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def pins(file: Path) -> Pins:
    found: Pins = {}
    for entry in entries(file):
        one = Requirement(re.split(r"\s+--hash", entry)[0])
        (only,) = one.specifier
        assert only.operator == "==", entry
        found.setdefault(canonicalize_name(one.name), set()).add(only.version)
    return found


def wanted(extra: str) -> list[Requirement]:
    """What an extra brings, with the extras of ours that it names."""
    found: list[Requirement] = []
    for line in EXTRAS[extra].strip().splitlines():
        one = Requirement(line)
        found += (
            [more for name in one.extras for more in wanted(name)]
            if one.name == "syncloud"
            else [one]
        )
    return found


def test_there_is_a_file_for_every_extra_for_the_oldest_and_for_builds() -> None:
    assert {file.stem for file in FILES} == {*EXTRAS, "oldest", "build"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_version_is_fixed_and_hashed_and_no_place_is_named(file: Path) -> None:
    """A place would be one of ours: where the packages come from is for pip's own settings."""
    assert entries(file)
    for entry in entries(file):
        assert re.fullmatch(
            r"[a-z0-9._-]+==[^\s;]+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry
        ), entry
    assert not re.search(
        r"https?:|file:|--(extra-)?index-url|--find-links|--trusted-host", file.read_text()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_fixed_is_what_is_required(file: Path) -> None:
    fixed = pins(file)
    if file.stem == "build":
        required = [
            Requirement(line)
            for line in re.findall(
                r'^requires = \["(.+)"\]$', _text("pyproject.toml"), re.MULTILINE
            )
        ]
    else:
        lines = METADATA["options"]["install_requires"].strip().splitlines()
        required = [
            *map(Requirement, lines),
            *wanted("test" if file.stem == "oldest" else file.stem),
        ]
    assert required
    bounds = (
        {} if file.stem != "oldest" else {canonicalize_name(one.name): one for one in _oldest()}
    )
    for one in required:
        name = canonicalize_name(one.name)
        for version in fixed[name]:
            assert one.specifier.contains(version), f"{file.name}: {name} {version}; make lock"
    for name, one in bounds.items():
        assert all(one.specifier.contains(version) for version in fixed[name]), (
            f"{file.name}: {one}; make lock"
        )


def _oldest() -> list[Requirement]:
    return [
        Requirement(line)
        for line in _text("tests/oldest.txt").splitlines()
        if line and not line.startswith("#")
    ]


def test_the_files_agree_with_each_other() -> None:
    """All but the oldest agree.

    A test that passes in one environment has run with the versions of all of them.
    """
    seen: Pins = {}
    for file in FILES:
        if file.stem != "oldest":
            for name, versions in pins(file).items():
                assert seen.setdefault(name, versions) == versions, (
                    f"{file.name}: {name}; make lock LOCK_FLAGS=--upgrade"
                )


def test_nothing_is_installed_without_hashes() -> None:
    """But the checkout itself, which brings nothing along."""
    places = [
        CHECKOUT / "Makefile",
        *(CHECKOUT / ".ci").rglob("*"),
        *(CHECKOUT / "packaging").rglob("*"),
    ]
    texts = [
        file.read_text().replace("\\\n", " ")
        for file in places
        if file.is_file() and file.suffix not in (".rst", ".pyc")
    ]
    lines = [
        line for text in texts for line in text.splitlines() if re.search(r"pip\S* install\b", line)
    ]
    assert len(lines) >= 6
    for line in lines:
        assert ("--require-hashes" in line) != ("--no-deps" in line), line
        assert "--no-build-isolation" in line, f"what builds need would come without a hash: {line}"


def test_the_versions_that_were_looked_at_are_these() -> None:
    """A list with a date that is not of these versions would say something of others."""
    told = re.findall(
        r"^- ([a-z0-9-]+) (\d[\w.]*), (\d[\w.]*)$", _text("SECURITY.md"), re.MULTILINE
    )
    required = [
        canonicalize_name(Requirement(line).name)
        for line in METADATA["options"]["install_requires"].strip().splitlines()
    ]
    newest, oldest = (
        pins(CHECKOUT / "requirements/test.txt"),
        pins(CHECKOUT / "requirements/oldest.txt"),
    )
    assert told == [(name, *newest[name], *oldest[name]) for name in required]


def _text(name: str) -> str:
    return (CHECKOUT / name).read_text()
