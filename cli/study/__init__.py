"""`circuit run`: many discoveries from one file, and what is made of them."""
