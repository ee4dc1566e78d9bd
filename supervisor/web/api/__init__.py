"""The REST API, `/api/v1`: a file for each chapter, and one table of them."""
