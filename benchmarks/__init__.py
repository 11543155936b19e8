"""syncloud beside its peers: the same jobs, machine and server, in turn. See docs/BENCHMARKS.md.

Each folder may import from the ones before it: peers, suite, probes, jobs. `__main__` runs them.
"""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
"""The sources that are measured."""
