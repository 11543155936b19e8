"""Tests of the repository itself: layers, documents, packaging, mutants."""
