"""Unit tests of syncloud.log."""
