"""What every report is made of: summaries over seeds, figures, and a self-contained page.

Nothing is re-exported, so that a summary can be had without importing matplotlib.
"""

# What `run.write_run_report` writes, as far as there is something to show; the page comes last.
RUN_FILES = (
    "confusion.csv", "classes.csv", "figures/curves.png", "figures/confusion.png",
    "figures/classes.png", "figures/worst.png", "report.html",
)  # fmt: skip
