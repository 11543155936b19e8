"""Unit tests of syncloud.demo."""
