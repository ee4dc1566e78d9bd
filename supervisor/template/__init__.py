"""The template: the application imported once, and workers that are copies of it."""
