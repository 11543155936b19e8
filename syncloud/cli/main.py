"""The command-line entry point: subcommands, one `except SyncloudError`, exit codes."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from .. import log
from ..config import parser
from ..config.settings import SYSTEM_STATES, Invocation, Settings
from ..errors import ConfigurationError, SyncloudError, scrubbed
from ..log import display
from ..service import disclosure, state_directory, supervisor

_YOUNG = 10_000
"""Garbage-collection threshold in new objects. Work in progress allocates thousands of short-lived
objects, which reference counting frees. Python's default (700 in 3.11) would start many useless
collections.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: a code of errors.py, or 128 plus the signal
    number.
    """
    _hide_secrets()
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot encode must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        invocation = parser.parse(sys.argv[1:] if argv is None else argv, os.environ)
        return _COMMANDS[invocation.command](invocation)
    except supervisor.Stopped as stopped:
        _leave(stopped.exit_code)
    except SyncloudError as error:
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - every text needs escaping for the terminal
        _tell_unforeseen(error)
        return 1
    finally:
        log.close()


def _hide_secrets() -> None:
    """Redact secrets in Python's own reports of uncaught errors."""

    def last(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text = scrubbed("".join(traceback.format_exception(kind, error, trace)))
        print(display.laid_out(text), end="", file=sys.stderr)

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = last
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda told: last(told.exc_type, told.exc_value, told.exc_traceback)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda told: last(told.exc_type, told.exc_value, told.exc_traceback)


def _leave(exit_code: int) -> NoReturn:
    """Exit at once, after all results are recorded.

    A normal exit would wait for a thread in a call to a frozen server. Module teardown would also
    cost a tenth of a pass without changes.
    """
    log.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _tell(error: SyncloudError) -> None:
    """Report an error, its place and the next step: one event in the journal, plain lines
    elsewhere.
    """
    if log.is_journal(sys.stderr, os.environ):
        if not log.active():
            log.setup(log_format="auto", log_level="info", instance="", role="")
        log.error("service.failed", "%s", error, error=error)
        return
    first, *others = map(display.escaped, error.told)
    print("\n  ".join([f"syncloud: {first}", *others]), file=sys.stderr)
    if error.hint:
        print(f"          {display.laid_out(scrubbed(error.hint))}", file=sys.stderr)


def _tell_unforeseen(error: Exception) -> None:
    """Log the traceback of an unexpected error, because Python would print the texts unescaped."""
    if not log.active():
        log.setup(log_format="auto", log_level="info", instance="", role="")
    log.exception("internal.error", "ended unexpectedly: %r", error)


def _say(text: str) -> None:
    print(display.laid_out(scrubbed(text)), flush=True)


def _sync(invocation: Invocation) -> int:
    """Run push or pull: as a service until a signal, or as one pass."""
    settings = invocation.settings
    log.setup(
        log_format=settings.log_format,
        log_level=settings.log_level,
        instance=settings.instance,
        role=invocation.command,
    )
    for file in disclosure.found(parser.ETC, settings.instance, os.environ):
        log.warning(
            "secrets.open",
            "others have rights to %s, which may hold secrets",
            file,
            hint=f"chmod 600 {shlex.quote(str(file))}",
        )
    gc.set_threshold(_YOUNG)
    if not (invocation.once or invocation.dry_run):
        asyncio.run(supervisor.serve(invocation.command, settings, reread=_reread(invocation)))
        return 0
    failed = asyncio.run(
        supervisor.once(invocation.command, settings, say=_say if invocation.dry_run else None)
    )
    _leave(1 if failed else 0)


def _setup(invocation: Invocation) -> int:
    """Deploy bucket, queue and wiring by a change set, and report each resource."""
    from .. import cf  # here, because only this command needs CloudFormation
    from ..aws.session import Aws
    from ..cf.stack import Stack

    if invocation.print_template:
        _say(cf.template_text().rstrip())
        return 0
    settings = invocation.settings
    log.setup(
        log_format=settings.log_format,
        log_level=settings.log_level,
        instance=settings.instance,
        role="setup",
    )
    aws = Aws(region=settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)

    def report(line: str) -> None:
        log.info("setup.progress", "%s", line)

    stack = Stack(
        aws.client("cloudformation"), aws.client("s3"), name=settings.stack_name, report=report
    )
    if invocation.destroy:
        for command in stack.destroy(bucket=settings.bucket):
            _say(command)
        return 0
    if not invocation.dry_run:
        stack.settle()
    change_set = stack.plan(cf.parameters(bucket=settings.bucket, prefix=settings.prefix))
    if invocation.dry_run:
        for change in change_set.changes if change_set is not None else ():
            _say(str(change))
        if change_set is not None:
            stack.discard(change_set)
        return 0
    if change_set is None:
        report("nothing has changed")
    outputs = stack.outputs() if change_set is None else stack.execute(change_set)
    lines = cf.configuration_lines(outputs)
    if settings.write_config is not None:
        cf.write_config(settings.write_config, lines)
    for line in lines:
        _say(line)
    return 0


def _reread(invocation: Invocation) -> Callable[[], Settings]:
    """The reload function for SIGHUP: parses the same command line again with the current files."""
    return lambda: parser.parse(invocation.argv, os.environ).settings


def _status(invocation: Invocation) -> int:
    """Print one page per instance; the exit code is 0 if all instances are healthy."""
    from ..service import status  # here, because no other command needs the module

    healthy = True
    for directory in _states(invocation.settings):
        with state_directory.as_owner(directory):
            now = status.read(directory)
        healthy = healthy and now.healthy
        _say(
            display.in_json(status.encode(now))
            if invocation.json
            else status.page(directory.name, now)
        )
    return 0 if healthy else 1


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
    found = {
        path for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()
    }
    if not found:
        raise ConfigurationError(
            f"there is no instance in {settings.state_dir}",
            hint="systemctl list-units 'syncloud-*'",
        )
    return sorted(found)


def _resume(invocation: Invocation) -> int:
    from ..state import inspect, notes  # here, because no other command needs the modules

    (directory,) = _states(invocation.settings)
    with state_directory.as_owner(directory):
        order = notes.Resume.LOOK_AGAIN
        if invocation.allow_deletes:
            order = notes.Resume.ALLOW_DELETES
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
