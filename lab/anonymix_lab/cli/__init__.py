"""Commands of the laboratory, found by `anonymix` through the entry points `anonymix.commands`."""
