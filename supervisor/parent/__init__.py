"""The parent: it forks, judges, reloads and stops, and never touches the database."""
