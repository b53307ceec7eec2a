"""Circuits of run folders compared: what they share, against chance; no model is needed."""
