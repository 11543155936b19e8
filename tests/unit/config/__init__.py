"""Unit tests of syncloud.config."""
