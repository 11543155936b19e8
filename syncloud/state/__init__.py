"""The SQLite database of an instance: base rows and notes. Only this package imports sqlite3."""
