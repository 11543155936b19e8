"""The push and pull services: wiring, supervision, systemd, signals and status."""
