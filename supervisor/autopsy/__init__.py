"""What is kept of a run that was killed: its stack, its cost, its last words."""
