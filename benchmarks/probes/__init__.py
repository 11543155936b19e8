"""Single measurements: each probe measures one cost. Most of them run as commands of their own."""
