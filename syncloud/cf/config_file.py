"""The configuration file of `syncloud setup --write-config`, built from a stack's outputs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import ConfigurationError
from .template import Outputs


def configuration_lines(outputs: Outputs) -> list[str]:
    """The `name = value` lines of a push's or pull's configuration file."""
    values = {
        "bucket": outputs.bucket,
        "prefix": outputs.prefix,
        "queue-url": outputs.queue_url,
        "region": outputs.region,
        "expected-bucket-owner": outputs.account,
    }
    return [f"{name} = {value}" for name, value in values.items() if value]


_ADVICE = """\
# directory = DIR
# systemctl enable --now syncloud-push@{instance}
# Or syncloud-pull@{instance}; where its directory is not below /srv, /var/lib or /home, \
by systemctl edit:
#     [Service]
#     ReadWritePaths=DIR
# To run as another user than _syncloud (RemoveIPC=no where that user has other programs, too):
#     [Service]
#     User=NAME
#     SupplementaryGroups=_syncloud
#     RemoveIPC=no
"""
_ADVICE_ESCAPED = """\
# The name has a backslash. EnvironmentFile= takes it for one of a pattern, and StateDirectory=, \
on systemd 254 to 260, for one
# of an escape (github.com/systemd/systemd/issues/41853):
#     [Service]
#     EnvironmentFile=-/etc/syncloud/{pattern}.env
#     StateDirectory=
#     StateDirectory=syncloud/{escaped}
"""


def advice(instance: str) -> str:
    """Comments for the instance's configuration file: drop-ins for `systemctl edit`."""
    text = _ADVICE.format(instance=instance)
    if "\\" in instance:
        # StateDirectory= needs two levels of escaping: one for the file, one for the defect of
        # these systemd versions.
        once, twice = (instance.replace("\\", "\\" * count) for count in (2, 4))
        text += _ADVICE_ESCAPED.format(pattern=once, escaped=twice)
    return text


def write_config(file: Path, lines: list[str]) -> None:
    """Create `file` with mode 0640, from the lines and the `advice` for the instance in its name.

    An existing file is never changed; identical contents count as success. Raises
    ConfigurationError for different contents, or if the file cannot be written.
    """
    text = "".join(f"{line}\n" for line in lines) + advice(file.stem)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        if _holds(file, text):
            return
        hint = "move the file away or name another file, and run the same command again"
        raise ConfigurationError(f"{file} exists and is never overwritten", hint=hint) from None
    except OSError as error:
        raise ConfigurationError(f"cannot create {file}: {error.strerror}") from error
    _write(file, descriptor, text)


def _write(file: Path, descriptor: int, text: str) -> None:
    """Write a file that was just created, or delete the file."""
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            # The umask may have removed the group's rights, and the group may be the service's.
            os.fchmod(descriptor, 0o640)
            stream.write(text)
    except BaseException as error:
        with contextlib.suppress(OSError):
            file.unlink()  # a partial file would block the next run
        if isinstance(error, OSError):
            raise ConfigurationError(f"cannot write {file}: {error.strerror}") from error
        raise


def _holds(file: Path, text: str) -> bool:
    try:
        return file.is_file() and file.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
