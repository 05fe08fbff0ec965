"""What a person, or a program, sees of the command line."""
