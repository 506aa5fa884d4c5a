"""A blinded, balanced study of pairwise preferences: its design, the annotators' page, and the server."""
