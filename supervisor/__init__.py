"""Who runs the jobs: a parent, its forked children, and the command."""
