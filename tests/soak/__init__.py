"""`make soak`: one writer, one push, two pulls, and every fault at once; then an account of every write."""
