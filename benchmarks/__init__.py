"""Measurements of speed and of intervals' coverage: each command writes into results/."""
