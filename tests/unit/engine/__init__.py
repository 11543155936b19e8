"""Unit tests of syncloud.engine."""
