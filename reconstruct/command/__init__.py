"""The subcommands, and what they have beyond the Python API: settings, templates, the doctor."""
