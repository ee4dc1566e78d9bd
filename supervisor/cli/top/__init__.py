"""`jobvisor top`: the family, its queues, jobs and failures on a full screen, live."""
