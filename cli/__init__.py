"""The command line: arguments, what a command prints, exit codes."""
