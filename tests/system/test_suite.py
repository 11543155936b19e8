"""All other tests once more, with Debian 13's own Python and its versions of the libraries."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.system.conftest import PACKAGING, SELF


@pytest.mark.slow
@pytest.mark.timeout(1200, func_only=True)
@pytest.mark.skipif(SELF, reason="it makes a root of its own")
def test_the_suite_passes_with_debians_libraries() -> None:
    """Where one fails, its output is that of this test."""
    subprocess.run([str(PACKAGING / "bin/suite")], env=os.environ | {"WORKERS": "2"}, check=True)
