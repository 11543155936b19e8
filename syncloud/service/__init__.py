"""push and pull as they run: wiring, supervision, systemd, signals and status."""
