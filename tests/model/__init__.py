"""The engine against a model, driven by hypothesis."""
