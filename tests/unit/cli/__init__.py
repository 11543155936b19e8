"""Unit tests of syncloud.cli."""
