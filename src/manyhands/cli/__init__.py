"""The `manyhands` command: one file for each group of commands, `app` puts them together, `run` ends with the exit code."""
