"""What CLI, API and pages tell with the same words: documents that JSON takes."""
