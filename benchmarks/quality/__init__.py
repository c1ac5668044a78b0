"""How good results are: against brute force, exact posteriors, attacks, malformed calls."""
