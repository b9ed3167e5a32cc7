"""How far to believe a result: cross-validation, fusion, metrics and intervals."""
