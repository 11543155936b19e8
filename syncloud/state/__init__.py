"""The state of an instance: base rows and notes in SQLite. Only this package imports sqlite3."""
