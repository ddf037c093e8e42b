"""What recording last-pulled times costs (ADR 61)."""
