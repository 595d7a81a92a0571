"""From raw input to a dataset folder, a task at a time."""
