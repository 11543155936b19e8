"""Unit tests of syncloud.cf."""
