"""The command lines: each tool in the same terms, with its environment and its version."""
