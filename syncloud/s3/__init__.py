"""The S3 side: one bucket prefix as a tree, its HTTP requests, and the store's capabilities."""
