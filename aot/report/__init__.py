"""The report: a folder of pages that can be opened from disk or from any static server."""
