"""Style sheet and icon that the prompt page and the report share."""
