"""The networks. They know nothing of folds."""
