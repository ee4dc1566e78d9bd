"""A process that holds the SQLite connection of a worker with several lanes, and the way to it."""
