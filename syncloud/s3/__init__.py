"""A prefix of a bucket: the tree, its requests, and the capabilities of the store."""
