"""`make soak`: one writer, one push, two pulls, and every fault at once.

An account of every write follows.
"""
