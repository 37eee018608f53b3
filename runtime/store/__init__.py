"""The store: one SQLite database in WAL mode that holds everything that must outlive a process."""
