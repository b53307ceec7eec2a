"""Where models come from: built-in directories, local Hugging Face directories, the hub."""
