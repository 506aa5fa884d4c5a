"""What is a run? The settings of scales, variants, ablations and runs: typed, strict, with file and line."""
