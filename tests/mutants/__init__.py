"""`make mutants` removes each defence from a copy of the code; its test must then fail."""
