"""Preference records and what is made of them: studies, readers, ratings."""
