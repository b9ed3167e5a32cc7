"""Simulated CT around the real readers' outlines."""
