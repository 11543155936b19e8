"""The configuration in force: settings that a reload replaces, and that a failed start restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from .. import log
from ..config.settings import Settings
from ..errors import ConfigurationError
from .steps import Steps

FIXED = frozenset(
    {"instance", "directory", "bucket", "prefix", "queue-url", "state-dir", "endpoint-url"}
)
"""Settings that no reload can change, because the state's observations belong to this pair and
store.
"""
_FIXED_HINT = "restart the service for that, or write the old value back"


def start_log(settings: Settings, role: str) -> None:
    """Open the log as these settings want, or change the open log."""
    level, form = settings.log_level, settings.log_format
    log.setup(log_format=form, log_level=level, instance=settings.instance, role=role)


class Configuration:
    """The settings of a service. `reread` reads the files again and raises ConfigurationError."""

    def __init__(
        self, role: str, settings: Settings, reread: Callable[[], Settings], steps: Steps
    ) -> None:
        self.settings = settings
        self._role = role
        self._reread = reread
        self._steps = steps
        self._former: Settings | None = None

    async def reload(self) -> bool:
        """Read the configuration again; returns whether settings changed. Raises CalledOff."""
        try:
            new = await self._steps.run(self._reread)
            _refuse(self.settings, new)
        except ConfigurationError as error:
            _log_refusal(error)
            return False
        changed = _differences(self.settings, new)
        if changed:
            self._former, self.settings = self.settings, new
            start_log(new, self._role)
            log.info("reload.accepted", "taken over: %s", ", ".join(changed))
        return bool(changed)

    def confirm(self) -> None:
        """Keep the present settings for good, because a start with them has succeeded."""
        self._former = None

    def revert(self, error: ConfigurationError) -> None:
        """Restore the former settings after an error found only at start. Without former settings,
        the error ends the service.
        """
        if self._former is None:
            raise error
        self.settings, self._former = self._former, None
        start_log(self.settings, self._role)
        _log_refusal(error)


def _log_refusal(error: ConfigurationError) -> None:
    log.error("reload.refused", "%s; the old configuration stays", error, error=error)


def _differences(old: Settings, new: Settings) -> list[str]:
    """Names of the options with different values, in the spelling of the configuration."""
    names = [field.name for field in fields(Settings) if field.compare]
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    return [name.replace("_", "-") for name in changed]


def _refuse(old: Settings, new: Settings) -> None:
    """Raise ConfigurationError for a change of the pair or the state, because such a change needs a
    restart.
    """
    # `instance` comes last, because its value may derive from other options. The error names the
    # option that the user changed.
    for name in sorted(_differences(old, new), key="instance".__eq__):
        if name in FIXED:
            before, after = (getattr(one, name.replace("-", "_")) for one in (old, new))
            text = f"{name} cannot change from {before} to {after} in a reload"
            raise ConfigurationError(f"{new.sources.get(name, '')}: {text}", hint=_FIXED_HINT)
