"""What every report is made of: summaries over seeds, figures, and a self-contained page.

Nothing is re-exported, so that a summary can be had without importing matplotlib.
"""
