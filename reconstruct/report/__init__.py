"""The report on a run: in the terminal, and as report.html."""
