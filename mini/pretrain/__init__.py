"""Trainers of the miniature's networks."""
