"""What several tests share: the emulator, a bucket in it, a proxy that counts requests, processes."""
