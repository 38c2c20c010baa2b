"""The command line: a file of commands each, on the rooms below."""
