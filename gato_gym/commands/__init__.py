"""The command ``gato-gym`` and its subcommands."""
