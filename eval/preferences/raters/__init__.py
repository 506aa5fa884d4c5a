"""Automatic raters: programs that answer the questions that people are asked."""
