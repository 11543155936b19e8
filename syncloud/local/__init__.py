"""A directory of this host: tree, watch, threads of the disk, and everything that asks the kernel about files."""
