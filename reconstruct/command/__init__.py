"""What the command line has beyond the Python API: settings, templates, the doctor."""
