"""What a run tells people: in the terminal, and as report.html."""
