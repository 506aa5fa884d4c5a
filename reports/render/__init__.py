"""Table 1 and the report as files: CSV, Markdown, LaTeX, PDF."""
