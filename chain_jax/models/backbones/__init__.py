"""Frame to feature: pretrained image networks and readers of their weights."""
