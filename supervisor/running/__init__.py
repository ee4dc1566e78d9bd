"""What every worker needs to run jobs, with one lane or with several."""
