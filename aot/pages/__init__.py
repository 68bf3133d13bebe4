"""What the prompt page and the report share: their look."""
