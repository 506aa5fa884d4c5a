"""The report: measured results beside the published ones, as CSV, Markdown, LaTeX, figures and a PDF."""
