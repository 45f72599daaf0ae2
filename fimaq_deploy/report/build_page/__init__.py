"""One build: its table, verdict, charts and sections."""
