"""The contract suite: one set of tests for every tree."""
