"""A local directory: its tree, its inotify watch, the disk threads and all file system calls."""
