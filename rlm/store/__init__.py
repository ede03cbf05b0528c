"""The store: studies in one SQLite file."""
