"""What changes, as it changes: Server-Sent Events for pages and programs."""
