"""Tools of several tests: the emulator, a bucket in it, a proxy that counts requests, processes."""
