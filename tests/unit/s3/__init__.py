"""Unit tests of syncloud.s3."""
