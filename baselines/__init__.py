"""The rivals of ADD: other ways to make a fast student of the same teacher, each trained in one readable file."""
