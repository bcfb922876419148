"""`core-tuning sweep report`: finished runs beside the paper's numbers, as tables and a page."""
