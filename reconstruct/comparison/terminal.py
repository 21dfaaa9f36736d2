"""What a comparison says in the terminal."""

from __future__ import annotations

from reconstruct.comparison.outcome import Comparison
from reconstruct.comparison.page import PAGE
from reconstruct.comparison.tables import agreement_table, comparison_verdict, method_table
from reconstruct.report.terminal import print_page, print_table, print_verdict


def print_comparison(comparison: Comparison) -> None:
    """The verdict, the table of methods, how far their poses agree, and where the page is."""
    print_verdict(comparison_verdict(comparison))
    print_table("methods", method_table(comparison))
    if comparison.agreements:
        print_table("agreement of poses", agreement_table(comparison))
    print_page(comparison.output / PAGE)
