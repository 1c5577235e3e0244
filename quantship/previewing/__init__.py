"""What a recipe would train and evaluate on, shown without running it."""
