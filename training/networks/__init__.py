"""The networks of the published methods, with their operators, losses and registry."""
