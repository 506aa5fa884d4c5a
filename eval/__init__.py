"""Prompts, samples and metrics; knows the method's specifications, and not how it trains."""
