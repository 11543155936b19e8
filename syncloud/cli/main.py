"""The entry point of the command line: subcommands, one `except SyncloudError`, exit codes."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .. import log
from ..config import parser
from ..config.settings import SYSTEM_STATES, Invocation, Settings
from ..errors import ConfigurationError, SyncloudError
from ..log import display
from ..service import disclosure, state_directory
from ..service.configuration import start_log
from ..service.signals import Stopped, exit_code
from . import output

_YOUNG = 10_000
"""Garbage-collection threshold in new objects. Work in progress allocates thousands of short-lived
objects, which reference counting frees. Python's default (700 in 3.11) would start many useless
collections.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: a code of errors.py, or 128 plus the signal
    number.
    """
    output.prepare()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except Stopped as stopped:
        output.leave(stopped.exit_code)
    except SyncloudError as error:
        output.report(error)
        return error.exit_code
    except KeyboardInterrupt:
        return exit_code(signal.SIGINT)
    except BrokenPipeError:
        output.discard()
        return 1
    except Exception as error:  # noqa: BLE001 - every text needs escaping for the terminal
        output.report_unexpected(error)
        return 1
    finally:
        log.close()


def _run(argv: Sequence[str]) -> int:
    invocation = parser.parse(argv, os.environ)
    return _COMMANDS[invocation.command](invocation)


def _sync(invocation: Invocation) -> int:
    """Run push or pull: as a service until a signal, or as one pass."""
    settings = invocation.settings
    start_log(settings, invocation.command)
    _warn_of_disclosure(settings)
    gc.set_threshold(_YOUNG)
    if invocation.once or invocation.dry_run:
        _pass(invocation)
    from ..service import supervisor  # here, because no other command needs the module

    asyncio.run(supervisor.serve(invocation.command, settings, reread=_reread(invocation)))
    return 0


def _pass(invocation: Invocation) -> NoReturn:
    from ..service import single_pass  # here, because no other command needs the module

    show = output.show if invocation.dry_run else None
    work = single_pass.run(invocation.command, invocation.settings, show=show)
    output.leave(1 if asyncio.run(work) else 0)


def _warn_of_disclosure(settings: Settings) -> None:
    text = "other users have access to %s, which may hold secrets"
    for file in disclosure.found(parser.ETC, settings.instance, os.environ):
        log.warning("secrets.open", text, file, hint=f"chmod 600 {shlex.quote(str(file))}")


def _reread(invocation: Invocation) -> Callable[[], Settings]:
    """The reload function for SIGHUP: parses the same command line again with the current files."""
    return lambda: parser.parse(invocation.argv, os.environ).settings


def _setup(invocation: Invocation) -> int:
    from . import setup  # here, because only this command needs CloudFormation

    return setup.run(invocation)


def _status(invocation: Invocation) -> int:
    """Print one page per instance; the exit code is 0 if all instances are healthy."""
    healthy = [_show(directory, invocation) for directory in _states(invocation.settings)]
    return 0 if all(healthy) else 1


def _show(directory: Path, invocation: Invocation) -> bool:
    """Print the page of one instance; returns whether the instance is healthy."""
    from ..service import status  # here, because no other command needs the modules
    from .status_page import page

    with state_directory.as_owner(directory):
        now = status.read(directory)
    as_json = invocation.json
    output.show(display.in_json(status.encode(now)) if as_json else page(directory.name, now))
    return now.healthy


def _states(settings: Settings) -> list[Path]:
    """The state directory of the instance. Without an instance, those of the user and of the
    system's services.
    """
    places = [settings.state_dir]
    if settings.sources["state-dir"] == "default":
        places.append(SYSTEM_STATES / settings.instance)
    if settings.instance:
        return [next((place for place in places if place.is_dir()), settings.state_dir)]
    if (settings.state_dir / "state.sqlite").exists():
        return [settings.state_dir]
    found = {path for place in places for path in _folders(place)}
    if not found:
        hint = "systemctl list-units 'syncloud-*'"
        raise ConfigurationError(f"there is no instance in {settings.state_dir}", hint=hint)
    return sorted(found)


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def _resume(invocation: Invocation) -> int:
    from ..state import inspect, notes  # here, because no other command needs the modules

    (directory,) = _states(invocation.settings)
    allows = invocation.allow_deletes
    order = notes.Resume.ALLOW_DELETES if allows else notes.Resume.LOOK_AGAIN
    with state_directory.as_owner(directory):
        inspect.leave_note(directory, notes.RESUME, order)
    return 0


def _demo(invocation: Invocation) -> int:
    from .. import demo  # here, because no other command needs the module

    return demo.run(once=invocation.once)


_COMMANDS: Mapping[str, Callable[[Invocation], int]] = {
    "push": _sync,
    "pull": _sync,
    "setup": _setup,
    "status": _status,
    "resume": _resume,
    "demo": _demo,
}
