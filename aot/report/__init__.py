"""The report: a folder of pages that opens from disk, or from any static server."""
