"""syncloud: a file synchroniser between machines, through S3."""

__version__ = "0.1.0"
