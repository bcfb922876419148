"""What to run for each table of the paper, on which launcher; it starts the other subpackages by
command and imports none of them."""
