"""Unit tests of syncloud.aws."""
