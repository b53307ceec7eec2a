"""In-context learning in three phases: the text is summarised, merged into its label, and retrieved by the query."""
