"""Built-in tasks: a command, a call of a URL, a mail. Each is known only where its module is configured."""
