"""The table of options: each row is complete, and settings and acts are its rows."""

from __future__ import annotations

import dataclasses
import re

import pytest

from syncloud.config import options
from syncloud.config.options import OPTIONS, Option, Scope
from syncloud.config.settings import Invocation, Settings


def test_settings_and_acts_are_those_of_the_table() -> None:
    dests = {option.dest for option in OPTIONS if option.scope is Scope.SETTING} - {
        "include",
        "exclude",
    }
    assert {row.name for row in dataclasses.fields(Settings)} == dests | {
        "instance",
        "patterns",
        "sources",
    }
    acts = {option.dest for option in OPTIONS if option.scope is Scope.ACT}
    assert {row.name for row in dataclasses.fields(Invocation)} == acts | {
        "command",
        "settings",
        "argv",
    }


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_row_is_complete(option: Option) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name)
    assert option.help[0].islower() or option.help.startswith("AWS")
    assert not option.help.endswith(".")
    assert "%" not in option.help + option.unset  # argparse would format it
    assert set(option.commands) <= set(options.COMMANDS)
    if option.default is not None:
        option.value(option.default)
    if option.scope is Scope.ACT:
        assert not option.metavar


def test_names_are_unique() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
