"""syncloud beside its peers: the same job on the same machine, against the same server, in turn. See docs/BENCHMARKS.md."""
