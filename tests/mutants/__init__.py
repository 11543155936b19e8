"""`make mutants`: each defence is removed from a copy of the code, and the test that guards it must fail."""
