"""Unit tests of syncloud.queue."""
