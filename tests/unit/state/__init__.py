"""Unit tests of syncloud.state."""
