"""How far simulated CT is from real CT of the same nodules, and what it is worth for learning."""
