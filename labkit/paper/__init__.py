"""The paper's tables and figures, each declared as data, and what makes them from a cohort."""
