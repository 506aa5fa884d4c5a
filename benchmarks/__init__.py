"""How long things take, and how well they hold: each module is a command that writes into results/."""
