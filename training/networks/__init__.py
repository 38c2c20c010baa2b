"""The networks of the papers, their operators, losses and registry."""
