"""What it costs, measured beside the bare database in the same run: `python -m tests.bench`.

Nothing here is asserted: a timing says something about a machine, a ratio about us.
"""
