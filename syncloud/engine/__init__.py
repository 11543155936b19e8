"""The sync engine: a level-triggered reconciler from hints to recorded rows.

A hint names a path; the engine reconciles the path, records the result and acknowledges the
receipt. The engine knows trees by their contract alone (`core.interfaces.Tree`).
"""
