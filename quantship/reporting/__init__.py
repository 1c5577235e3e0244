"""The report of a run: one model of it, shown as JSON, Markdown, HTML and a terminal table."""
