"""The rules: entries, hints, plans, diffs, names, filters. Pure: no I/O and no clock of its own."""
