"""Entries, tags and scan records, made from the stats of files."""

from __future__ import annotations

import os

from ..core.model import Entry, ScanRecord, Tag


def tag_of(status: os.stat_result) -> Tag:
    """Inode, size, mtime, ctime; no device number, because a reboot may change it."""
    inode, size, mtime_ns, ctime_ns = stamps_of(status)
    return str(inode), str(size), str(mtime_ns), str(ctime_ns)


def stamps_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """The fields of a tag, as numbers."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def entry_of(
    path: str,
    status: os.stat_result,
    crc: int | None = None,
    *,
    body: bytes | None = None,
    racy: bool = False,
) -> Entry:
    tag, mode = tag_of(status), status.st_mode & 0o777
    return Entry(path, tag, status.st_size, status.st_mtime_ns, mode, crc, body, racy=racy)


def marker(path: str) -> Entry:
    """The entry of an empty directory. Only existence counts, so times and mode are 0."""
    return Entry(path, ("directory", "", "", ""), 0, 0, 0, 0)


def scan_record_of(path: str, status: os.stat_result) -> ScanRecord:
    tag = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return path, tag, status.st_mode & 0o777


def entry_of_scan_record(record: ScanRecord) -> Entry:
    path, text, mode = record
    tag = tuple(text.split(" "))
    return Entry(path, tag, int(tag[1]), int(tag[2]), mode)
