"""The prompt page: the server behind `python -m aot.prompt`, and the page that it serves."""
