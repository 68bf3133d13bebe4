"""The report: a folder of pages that opens from the disk, and by any static server."""
