"""Everything that a scale assumes, looked at before anything is trained."""
