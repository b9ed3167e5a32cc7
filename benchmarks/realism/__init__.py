"""How far simulated CT is from real CT of the same nodules, and what it is worth for learning.

    python -m benchmarks.realism measure REAL_COHORT SIMULATED_COHORT --out results/realism.json
    python -m benchmarks.realism transfer REAL_COHORT SIMULATED_COHORT --out results/transfer.json

The simulation is drawn around the outlines and ratings of real nodules, so that most real cubes
have a simulated twin: they are compared nodule by nodule, after both were made alike. What is
written are numbers only, never an image.
"""
