"""Foreign formats, one file each: circuits as other programs read and write them."""
