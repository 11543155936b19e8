"""Tests of several packages at once, with real processes, HTTP and tools."""
