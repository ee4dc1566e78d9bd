"""A worker with several lanes: threads, one event loop, and the conductor between them."""
