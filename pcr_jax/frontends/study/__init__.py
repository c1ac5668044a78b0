"""Studies: their settings, who is in which arm, what comes out, and people who are simulated."""
