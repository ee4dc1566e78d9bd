"""Tasks that need no code of yours: name their modules in `[tasks] modules`."""
