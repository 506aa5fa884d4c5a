"""From votes to ratings: the paper's ELO, Bradley-Terry with intervals, win rates, and what the votes are worth."""
