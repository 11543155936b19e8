"""Unit tests of syncloud.core."""
