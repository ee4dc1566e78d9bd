"""The scheduler: the process that enqueues what schedules say is due."""
