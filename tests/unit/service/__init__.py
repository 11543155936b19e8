"""Unit tests of syncloud.service."""
