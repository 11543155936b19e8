"""The command line: subcommands, output, exit codes."""
