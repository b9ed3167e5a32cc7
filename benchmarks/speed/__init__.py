"""Times, measured side by side in one run, into results/benchmark_*.json."""
