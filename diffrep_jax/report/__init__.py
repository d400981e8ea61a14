"""A run's folder -> one document of plain values -> a web page and Markdown with the same content."""
