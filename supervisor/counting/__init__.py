"""What the children of a family count in shared memory, for the metrics and the charts."""
