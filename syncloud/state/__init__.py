"""The state of an instance in sqlite: base rows and notes. Owner of sqlite3."""
