"""Circuit discovery in transformer language models: a library that prints nothing and needs no command line."""
