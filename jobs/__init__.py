"""What a job is and where it lives; what is public of it is exported by `jobvisor`."""

__version__ = "0.6.0"
