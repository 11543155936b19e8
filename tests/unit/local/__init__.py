"""Unit tests of syncloud.local."""
