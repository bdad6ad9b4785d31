"""Files, clocks, SQLite, HTTP and tasks of the controller."""
