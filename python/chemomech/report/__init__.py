"""Figures and the page that show what was learned."""
