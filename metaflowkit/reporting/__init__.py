"""What a person sees: the terminal while a run goes, and the report at its end."""
