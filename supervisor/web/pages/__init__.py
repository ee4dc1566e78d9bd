"""The pages: one file for what each shows, its HTML in `templates`, its looks in `static`."""
