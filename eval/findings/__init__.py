"""Claims as tests: contrasts between rows, verdicts on a page of claims, the store of a study that grows."""
