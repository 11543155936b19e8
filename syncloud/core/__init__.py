"""Pure rules: entries, hints, plans, diffs, names, filters. No I/O and no clock of their own."""
