"""The command line over the variants: list, show, diff, validate, explain."""
