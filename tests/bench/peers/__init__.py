"""Other queues measured in the same run, on the same machine, with the same job."""
