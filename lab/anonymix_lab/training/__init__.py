"""Training of the weights that the project ships, each by one command."""
