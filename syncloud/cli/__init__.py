"""The command-line interface: subcommands, output, exit codes."""
