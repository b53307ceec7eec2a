"""Which tokens of a prompt a prediction rests on: ways to say it, and judges of what they say."""
