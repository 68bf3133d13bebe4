"""The prompt page: a small server behind `python -m aot.prompt`, and what it shows in the browser."""
